"""Labels that came back from serving: which images they add to a data set, and which references are rejected."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from serving.image.decode import OWN_IMAGE_LIMITS
from training.data.images import ImageSet, LabelledImage
from training.data.layout import DataError
from training.data.served_labels import (
    ADDED,
    CHANGED,
    CONFLICT,
    COPIES,
    IN_DATA,
    IN_VALID,
    MISSING,
    NO_REFERENCE,
    UNKNOWN,
    read_served_labels,
)

HEADER = "id,model,version,predicted,label,probability,predicted_at,labelled_at,reference"
CLASSES = ("cats", "dogs")


def line(reference: str, label: str = "cats", minute: int = 0) -> str:
    return f"00,pets,1,cats,{label},0.9,2026-11-01T00:00:00.000Z,2026-11-01T01:{minute:02}:00.000Z,{reference}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with images a to e, whose content is their name, and a copy of a."""
    folder = tmp_path / "camera"
    (folder / "inner").mkdir(parents=True)
    for name in "abcde":
        (folder / f"{name}.jpg").write_bytes(name.encode())
    (folder / "inner" / "copy.jpg").write_bytes(b"a")
    return folder


def image(name: str, label: int, part: str = "train") -> LabelledImage:
    """An image of the data folder with the same content as `name`.jpg of the root."""
    return LabelledImage(Path(f"/data/{part}/{name}.jpg"), label, hashlib.sha256(name.encode()).digest())


def images(train: tuple[LabelledImage, ...] = (), valid: tuple[LabelledImage, ...] | None = ()) -> ImageSet:
    return ImageSet(CLASSES, [image("x", 0), image("y", 1), *train], None if valid is None else [*valid])


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def applied(path: Path, root: Path, there: ImageSet) -> tuple[dict[str, str], dict[str, int], dict[str, Any]]:
    """The added files with their classes, the counts, and the record for run.json."""
    changed, record, lines = read_served_labels(path, root).apply(there, OWN_IMAGE_LIMITS)
    assert changed.train == there.train
    assert len(lines) == len(record["outcomes"])
    added = {each.path.relative_to(root.resolve()).as_posix(): CLASSES[each.label] for each in changed.train_only}
    assert record["added"] == len(added)
    return added, {what: outcome["count"] for what, outcome in record["outcomes"].items()}, record


def test_the_images_of_labels_are_trained_on(tmp_path: Path, root: Path) -> None:
    path = written(tmp_path, line("a.jpg"), line("./b.jpg", "dogs"), line("inner//copy.jpg"))
    added, counts, record = applied(path, root, images())
    assert added == {"a.jpg": "cats", "b.jpg": "dogs"}
    assert counts == {ADDED: 2, COPIES: 1}
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_label_that_adds_no_image_is_counted_with_an_example(tmp_path: Path, root: Path) -> None:
    rows = [line(""), line("a.jpg", "horses"), line("gone.jpg"), line("b.jpg"), line("c.jpg"), line("d.jpg", "dogs")]
    rows += [line("inner"), line("n" * 256), line("e.jpg")]
    there = images(train=(image("b", 0), image("c", 1)), valid=(image("d", 1, "valid"),))
    added, counts, record = applied(written(tmp_path, *rows), root, there)
    assert added == {"e.jpg": "cats"}
    assert counts == {NO_REFERENCE: 1, UNKNOWN: 1, MISSING: 3, IN_DATA: 1, CONFLICT: 1, IN_VALID: 1, ADDED: 1}
    assert record["outcomes"][UNKNOWN]["examples"] == ["a.jpg (horses)"]
    assert record["outcomes"][MISSING]["examples"][:2] == ["gone.jpg", "inner"]
    assert record["outcomes"][CONFLICT]["examples"] == ["c.jpg (cats), which is /data/train/c.jpg"]


def test_the_latest_label_of_an_image_counts(tmp_path: Path, root: Path) -> None:
    rows = [line("a.jpg", "cats", 5), line("a.jpg", "dogs", 7), line("a.jpg", "cats", 6), line("b.jpg"), line("b.jpg")]
    added, counts, record = applied(written(tmp_path, *rows), root, images())
    assert added == {"a.jpg": "dogs", "b.jpg": "cats"}
    assert counts == {CHANGED: 2, ADDED: 2}
    assert record["outcomes"][CHANGED]["examples"] == ["a.jpg (cats, dogs)", "a.jpg (dogs, cats)"]


def test_the_latest_label_of_copies_counts(tmp_path: Path, root: Path) -> None:
    rows = [line("a.jpg", "cats", 5), line("inner/copy.jpg", "dogs", 7)]
    added, counts, _ = applied(written(tmp_path, *rows), root, images())
    assert added == {"inner/copy.jpg": "dogs"}
    assert counts == {ADDED: 1, CHANGED: 1}


def test_without_times_the_later_row_counts(tmp_path: Path, root: Path) -> None:
    path = written(tmp_path, "a.jpg;cats", "a.jpg;dogs", header="\ufeffreference;label")
    assert applied(path, root, images())[0] == {"a.jpg": "dogs"}


def test_an_image_whose_name_looks_like_a_formula_is_found(tmp_path: Path, root: Path) -> None:
    (root / "=1+1.jpg").write_bytes(b"formula")
    assert applied(written(tmp_path, line("'=1+1.jpg")), root, images())[0] == {"=1+1.jpg": "cats"}


def test_added_images_are_never_held_out(tmp_path: Path, root: Path) -> None:
    train = tuple(image(f"{label}{n}", label) for label in (0, 1) for n in range(10))
    there = images(train=train, valid=None)
    changed, _, _ = read_served_labels(written(tmp_path, *(line(f"{n}.jpg") for n in "abcde")), root).apply(
        there, OWN_IMAGE_LIMITS
    )
    for seed in range(20):
        split = changed.split(valid_fraction=0.5, seed=seed)
        without = there.split(valid_fraction=0.5, seed=seed)
        assert split.valid == without.valid
        assert len(split.train) == len(without.train) + 5


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("../secret.jpg", r"has a \.\. in it"),
        ("inner/../../secret.jpg", r"has a \.\. in it"),
        ("/etc/passwd", "is an absolute path"),
        ("out/secret.jpg", "leads out of"),
        ("out.jpg", "leads out of"),
        ("a\x1b.jpg", "has a control character"),
        ("a" * 257, "has 257 bytes"),
    ],
)
def test_references_that_lead_out_of_the_folder_are_rejected_with_their_row(
    tmp_path: Path, root: Path, reference: str, complaint: str
) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path)
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    path = written(tmp_path, line("a.jpg"), line(reference))
    with pytest.raises(DataError, match=f"labels.csv, row 3: .*{complaint}"):
        read_served_labels(path, root)


def test_links_within_the_folder_are_followed_and_circles_are_missing(tmp_path: Path, root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "e.jpg")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    path = written(tmp_path, line("link.jpg"))
    assert applied(path, root, images())[0] == {"link.jpg": "cats"}
    path = written(tmp_path, line("link.jpg"), line("circle.jpg"))
    assert applied(path, root, images())[1] == {MISSING: 1, ADDED: 1}


@pytest.mark.parametrize(
    ("header", "rows", "complaint"),
    [
        ("label", ["cats"], "has no column reference"),
        (HEADER, [], "the file has no rows"),
        (HEADER, [line("")], "1 without a reference"),
        (HEADER, [line("gone.jpg")], "1 not there: left out: gone.jpg"),
        ("file,label,probability,token,reference", ["a.jpg,cats,0.9,Ab,a.jpg"], "is the output of predict"),
        ("reference,label,labelled_at", ["a.jpg,cats,yesterday"], "row 2: labelled_at is 'yesterday'"),
        ("reference,label", ['"a.jpg' + "x" * 200_000 + '",cats'], "is not CSV: line"),
    ],
)
def test_files_that_add_nothing_are_rejected(
    tmp_path: Path, root: Path, header: str, rows: list[str], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        read_served_labels(written(tmp_path, *rows, header=header), root).apply(images(), OWN_IMAGE_LIMITS)


def test_the_folder_of_the_images_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read_served_labels(written(tmp_path, line("a.jpg")), tmp_path / "nowhere")
