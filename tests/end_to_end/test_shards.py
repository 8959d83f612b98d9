"""Shards give the same training as folders, and damaged shards are rejected."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.image.preprocess import Preprocess
from tests.support.commands import main_of, run_here, two_processes
from tests.support.recipes import TINY
from training.data.image_files import read_images
from training.data.images import Split
from training.data.layout import DataError
from training.data.shard_source import ShardSource
from training.data.shard_writer import write_shards
from training.data.shards import load_index
from training.data.sources import ImageSource
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.run import open_run

RECIPE = Recipe(
    **TINY,
    dropout=(0.0, 0.0),
    stages={
        "head": Stage(learn_from="activations", weight_decay=0.01),
        "whole": Stage(freeze_to=0, lr=(0.001,), augment="side-on"),
    },
)


PREPROCESS = Preprocess(crop=32, resize=36, interpolation="bilinear")


@pytest.fixture(scope="module")
def shards(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawings in several shards for training and for validation."""
    folder = tmp_path_factory.mktemp("sharded") / "shards"
    write_shards(drawings, folder, shard_bytes=250_000, valid_fraction=0.2, seed=0)
    return folder


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards, tmp_path / "copied")


def source_of(folder: Path, **changed: int) -> ShardSource:
    index = load_index(folder)
    return ShardSource(index, index.split().train, PREPROCESS, "side-on", 2, **changed)


def test_two_processes_on_shards_give_the_result_of_one_on_the_folder(
    drawings: Path, shards: Path, shared_cache: Path, tmp_path: Path
) -> None:
    RECIPE.save(tmp_path / "recipe.yaml")
    arguments = ["fit", "--recipe", str(tmp_path / "recipe.yaml")]
    finished = run_here(
        *("training", *arguments, "--data", drawings, "--run", tmp_path / "folder", "--cache", shared_cache)
    )
    assert finished.returncode == 0, finished.stderr
    options = ("--data", shards, "--run", tmp_path / "shards", "--cache", tmp_path / "cache")
    for several in two_processes(main_of, "training", *arguments, *options):
        assert several.returncode == 0, several.stderr
    one, two = (open_run(tmp_path / name).facts for name in ("folder", "shards"))
    assert two["processes"] == 2
    assert two["fingerprints"]["data"] == one["fingerprints"]["data"]
    assert two["activations"] == {"computed": 48, "reused": 0}
    assert two["metrics"]["n"] == one["metrics"]["n"] == 16
    for before, after in zip(one["steps"], two["steps"], strict=True):
        assert after["metrics"]["nll"]["value"] == pytest.approx(before["metrics"]["nll"]["value"], abs=1e-3)
    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("folder", "shards")]
    for first, second in zip(*([json.loads(line) for line in history] for history in histories), strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=0.02)
    # images in shards are found again: to be looked at, and by export
    images, _ = open_run(tmp_path / "shards").validation()
    assert sorted(hashlib.sha256(image.read()).digest() for image in images) == sorted(p.sha256 for p in images)
    evaluated = run_here("training", "evaluate", "--run", tmp_path / "shards", "--data", shards, "--json")
    assert json.loads(evaluated.stdout)["confusion_matrix"] == two["confusion_matrix"]


def split_of(folder: Path) -> Split:
    return read_images(folder).split(valid_fraction=0.2, seed=0)


def test_the_split_is_that_of_the_folder_and_webdataset_reads_the_shards(drawings: Path, shards: Path) -> None:
    split = load_index(shards).split()
    of_folder = split_of(drawings)
    for ours, theirs in ((split.train, of_folder.train), (split.valid, of_folder.valid)):
        assert [(image.label, image.sha256) for image in ours] == [(image.label, image.sha256) for image in theirs]
    assert len(list(shards.glob("train-*.tar"))) >= 3
    files = sorted(shards.glob("train-*.tar"))
    iterators = pytest.importorskip("webdataset.tariterators")
    with ExitStack() as opened:
        streams = [{"url": file.name, "stream": opened.enter_context(file.open("rb"))} for file in files]
        read = [sample["jpg"] for sample in iterators.group_by_keys(iterators.tar_file_expander(streams))]
    assert sorted(hashlib.sha256(content).digest() for content in read) == sorted(p.sha256 for p in of_folder.train)
    members = [load_index(shards).shards[file.name].members.values() for file in files]
    assert any(len({member.label for member in shard}) == 2 for shard in members), "the images are not mixed"


def test_the_same_images_and_seed_make_the_same_bytes(drawings: Path, shards: Path, tmp_path: Path) -> None:
    again = ("--data", drawings, "--shard-mb", 1)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        assert run_here("training", "shard", *again, "--out", tmp_path / name, "--seed", seed).returncode == 0
    one, two, other = ((tmp_path / name / "train-000000.tar").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other
    rejected = run_here("training", "shard", *again, "--out", tmp_path / "one")
    assert rejected.returncode == 1
    assert "one is there already" in rejected.stderr
    assert run_here("training", "shard", "--data", drawings, "--out", tmp_path / "x", "--shard-mb", 0).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "two"]


def test_files_that_are_no_images_are_left_out_of_shards(drawings: Path, tmp_path: Path) -> None:
    shutil.copytree(drawings, tmp_path / "photos")
    (tmp_path / "photos/train/cats/broken.jpg").write_bytes(b"\xff\xd8 no picture")
    made = run_here("training", "shard", "--data", tmp_path / "photos", "--out", tmp_path / "shards")
    assert made.returncode == 0
    assert "left out" in made.stderr
    assert "broken.jpg" in made.stderr
    assert len(load_index(tmp_path / "shards").split().train) == 32


def test_views_are_those_of_the_folder_in_either_order(drawings: Path, shards: Path) -> None:
    split = split_of(drawings)
    folder = ImageSource(split.train, PREPROCESS, "side-on", 0)
    for source in (source_of(shards), source_of(shards, max_held_bytes=0)):
        batches = [parts[0] for parts in source.epoch(8, 3, 1)]
        for (ours, labels), (theirs, expected) in zip(
            source.batches(batches, 5), folder.batches(batches, 5), strict=True
        ):
            assert ours.equal(theirs)
            assert labels.equal(expected)
    held = source_of(shards).epoch(8, 3, 2)
    assert [[part.tolist() for part in batch] for batch in held] == [
        [part.tolist() for part in batch] for batch in folder.epoch(8, 3, 2)
    ]


@settings(max_examples=40)
@given(batch_size=st.integers(8, 40), processes=st.integers(1, 4), seed=st.integers(0, 5))
def test_a_streamed_epoch_has_every_image_once_over_all_processes(
    shards: Path, batch_size: int, processes: int, seed: int
) -> None:
    source = source_of(shards, max_held_bytes=0)
    batches = source.epoch(batch_size, seed, processes)
    assert len(batches) == len(source.epoch(batch_size, seed + 1, processes))
    assert sorted(row for parts in batches for part in parts for row in part) == list(range(32))
    assert min(len(part) for parts in batches for part in parts) >= 1
    assert max(sum(map(len, parts)) for parts in batches) <= batch_size + 2 * processes
    assert sorted(row for part in source.parts(processes) for row in part) == list(range(32))


def test_a_streaming_process_reads_each_of_its_shards_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(shards, max_held_bytes=0)
    read: list[str] = []
    original = type(source.index).read_shard
    monkeypatch.setattr(type(source.index), "read_shard", lambda self, file: read.append(file) or original(self, file))
    batches = source.epoch(8, 1, 2)
    for rank in range(2):
        for _ in source.batches([parts[rank] for parts in batches], 0):
            pass
    train = [file for file in source.index.shards if file.startswith("train")]
    assert set(read) == set(train)
    assert len(read) <= len(train) + 1  # the one at the border is read by both


def change(folder: Path, **values: object) -> None:
    path = folder / "shards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "train-000000.tar").write_bytes(b"short"), "is not the one that"),
        (lambda folder: (folder / "train-000000.tar").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "shards.json").write_text("{"), "describes no shards"),
        (lambda folder: change(folder, format=2), "reads format 1"),
        (lambda folder: change(folder, counts={"train": 1, "valid": 1}), "lists 32 and 16"),
        (lambda folder: change(folder, url="pipe:cat /etc/passwd"), "must begin with https://"),
        (lambda folder: change(folder, shards=[{"file": "../x.tar", "bytes": 1, "sha256": ""}]), "a name like"),
    ],
)
def test_damaged_shards_are_rejected(damage, complaint: str, copied: Path) -> None:
    damage(copied)
    with pytest.raises(DataError, match=complaint):
        load_index(copied).read_shard("train-000000.tar")


def test_a_shard_with_other_images_is_rejected_even_if_its_own_hash_is_correct(copied: Path) -> None:
    path = copied / "shards.json"
    facts = json.loads(path.read_text())
    shard = bytearray((copied / "train-000000.tar").read_bytes())
    _, _, _, offset, size, _ = facts["shards"][0]["photos"][-1]
    shard[offset + size - 1] ^= 1
    (copied / "train-000000.tar").write_bytes(shard)
    facts["shards"][0]["sha256"] = hashlib.sha256(shard).hexdigest()
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="does not hold the image"):
        load_index(copied).read_shard("train-000000.tar")


@pytest.mark.parametrize(("place", "value"), [(0, "../../out.jpg"), (3, -1), (3, 10**9), (4, 10**12)])
def test_an_index_whose_images_lie_outside_their_shard_is_rejected(place: int, value: object, copied: Path) -> None:
    path = copied / "shards.json"
    facts = json.loads(path.read_text())
    facts["shards"][0]["photos"][0][place] = value
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="is out of range"):
        load_index(copied)


class Ranges(SimpleHTTPRequestHandler):
    """A file server with range requests, as object storage has them, or without."""

    ranges = True

    def do_GET(self) -> None:
        if not (path := Path(self.directory) / self.path[1:]).exists():
            self.send_error(404)
            return
        content = path.read_bytes()
        start, stop = 0, len(content)
        if given := self.headers["Range"] if self.ranges else None:
            first, last = given.removeprefix("bytes=").split("-")
            start, stop = int(first), int(last) + 1
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(shards: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(shards))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_shards_behind_a_url_are_read_like_local_ones(
    served: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards.json").write_bytes((shards / "shards.json").read_bytes())
    change(tmp_path, url=served)
    far, near = load_index(tmp_path), load_index(shards)
    assert far.read_shard("train-000001.tar") == near.read_shard("train-000001.tar")
    image = far.split().valid[0]
    assert image.read() == near.split().valid[0].read()
    monkeypatch.setattr(Ranges, "ranges", False)
    assert image.read() == near.split().valid[0].read()
    assert far.read_shard("train-000001.tar") == near.read_shard("train-000001.tar")
    (shards / "train-000001.tar").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"train-000001.tar cannot be read: .*404"):
        far.read_shard("train-000001.tar")
    (tmp_path / "away").rename(shards / "train-000001.tar")
    assert not np.any([path.suffix == ".tar" for path in tmp_path.iterdir()])
