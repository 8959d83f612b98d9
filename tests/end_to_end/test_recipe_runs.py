"""Whole recipes on drawings, with a network of few layers: stages, snapshots, resuming, processes, evaluation."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tensorboardX.proto.event_pb2 import Event

from tests.support.commands import Finished, WarmProcess, main_of, run_here, two_processes
from training import fit as fit_module
from training.distributed import ProcessGroup, joined_processes
from training.fitting.trainer import Trainer
from training.hardware import Hardware
from training.networks.layer_groups import layer_groups
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.folder import partial_folder
from training.runs.run import open_run

pytestmark = pytest.mark.slow

TINY = {"arch": "test_resnet", "weights": "none", "sizes": (32,), "batch_size": 8}
"""A network of timm's with few layers: what is tried here is how it is trained, not how well it does."""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe files by name."""
    folder = tmp_path_factory.mktemp("recipes")
    head = Stage(learn_from="activations", find_lr="show", weight_decay=0.01)
    whole = Stage(freeze_to=0, lr=(1e-4, 1e-3, 1e-2), find_lr="show", cycles=3, augment="side-on")
    for name, recipe in {
        "course": Recipe(
            **TINY,
            views=3,
            stages={"head": head, "augmented": Stage(lr=(0.001,), augment="top-down"), "whole": whole},
        ),
        "whole": Recipe(**TINY, stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=4, augment="side-on")}),
        "weights": Recipe(**TINY, average="weights", stages={"head": head, "whole": whole}),
        "networks": Recipe(**TINY, average="predictions", stages={"head": head, "whole": whole}),
        "heads": Recipe(
            **TINY, average="predictions", stages={"head": Stage(learn_from="activations", cycles=3, weight_decay=0.01)}
        ),
        "growing": Recipe(
            **(TINY | {"sizes": (32, 48)}), stages={"head": head, "whole": Stage(freeze_to=1, schedule="one-cycle")}
        ),
        "processes": Recipe(
            **TINY, dropout=(0.0, 0.0), stages={"head": head, "whole": Stage(freeze_to=0, lr=(0.001,), cycle_len=2)}
        ),
    }.items():
        recipe.save(folder / f"{name}.yaml")
    return folder


def fit(recipe: Path, data: Path, run: Path, cache: Path, *more: object) -> Finished:
    return run_here("training", "fit", "--recipe", recipe, "--data", data, "--run", run, "--cache", cache, *more)


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model.safetensors")


@pytest.fixture(scope="module")
def course(recipes: Path, drawings: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every kind of stage."""
    folder = tmp_path_factory.mktemp("runs") / "course"
    finished = fit(recipes / "course.yaml", drawings, folder, shared_cache)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_the_course_records_results_by_stage_and_test_time_augmentation(course: Path) -> None:
    facts = open_run(course).facts
    steps = facts["steps"]
    assert [step["name"] for step in steps] == ["head", "augmented", "whole"]
    assert steps[0]["against_previous"] is None
    for before, after in zip(steps, steps[1:], strict=False):
        paired = after["against_previous"]
        assert after["metrics"]["correct"] - before["metrics"]["correct"] == paired["gained"] - paired["lost"]
    assert steps[-1]["metrics"]["correct"] == facts["metrics"]["correct"]
    (test_time,) = facts["test_time"]
    assert test_time["views"] == 3
    assert 1 <= test_time["adaptive"]["mean_views"] <= 3
    assert test_time["adaptive"]["correct"] >= test_time["metrics"]["correct"]
    assert facts["recommended_views"] == (3 if test_time["helps"] else 1)
    assert set(facts["temperatures"]) == {"1", "3"}
    assert [found["stage"] for found in facts["lr_finder"]] == ["head", "whole"]
    assert facts["preprocess"]["crop"] == 32


def test_the_report_of_the_course_shows_stages_groups_learning_rates_and_augmentation(course: Path) -> None:
    report = (course / "report.html").read_text()
    for title in (
        "Results by stage",
        "Layer groups: whole",
        "Learning rate and momentum",
        "Learning-rate range test: head",
        "Learning-rate range test: whole",
        "One image augmented sixteen times: top-down",
        "Test-time augmentation",
    ):
        assert title in report, title
    assert "http" not in report
    names = {path.name for path in (course / "plots").iterdir()}
    assert {"losses.png", "rates.png", "lr-finder-1.png", "lr-finder-2.png", "augmentation.png"} <= names
    assert {path.read_bytes()[:4] for path in (course / "plots").iterdir()} == {b"\x89PNG"}
    assert not (course / "checkpoint.pt").exists()
    assert not partial_folder(course).exists()


def test_epochs_are_in_the_history_and_in_tensorboard_files(course: Path) -> None:
    history = [json.loads(line) for line in (course / "history.jsonl").read_text().splitlines()]
    assert [epoch["stage"] for epoch in history] == ["head", "augmented", "whole", "whole", "whole"]
    (file,) = (course / "tensorboard").glob("events.out.tfevents.*")
    content, at, scalars = file.read_bytes(), 0, {}
    while at < len(content):  # records: length, its checksum, content, its checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    for epoch in history:
        assert scalars["loss/validation", epoch["epoch"]] == pytest.approx(epoch["valid_loss"], rel=1e-6)
        assert scalars["learning_rate", epoch["epoch"]] == pytest.approx(epoch["lr"], rel=1e-6)


def test_training_the_head_on_images_leaves_the_body_unchanged(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    recipe = Recipe(**TINY, stages={"augmented": Stage(lr=(0.01,), augment="side-on")})
    recipe.save(tmp_path / "recipe.yaml")
    assert fit(tmp_path / "recipe.yaml", drawings, tmp_path / "one", shared_cache).returncode == 0
    more = ("--stages.augmented.cycles", 2, "--stages.augmented.augment", "none")
    assert fit(tmp_path / "recipe.yaml", drawings, tmp_path / "two", shared_cache, *more).returncode == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    differing = {name for name in one if not np.array_equal(one[name], two[name])}
    assert differing
    assert all(name.startswith("head.") for name in differing)
    assert Recipe.load(tmp_path / "two" / "recipe.yaml").stages["augmented"].cycles == 2


def test_the_same_seed_gives_the_same_weights(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert fit(recipes / "whole.yaml", drawings, tmp_path / name, shared_cache).returncode == 0
    assert fit(recipes / "whole.yaml", drawings, tmp_path / "other", shared_cache, "--seed", 1).returncode == 0
    one, two, other = (weights(tmp_path / name) for name in ("one", "two", "other"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("average", ["weights", "networks", "heads"])
def test_snapshots_are_averaged_and_an_ensemble_is_exported_as_one_graph(
    average: str, recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    finished = fit(recipes / f"{average}.yaml", drawings, tmp_path / "run", shared_cache)
    assert finished.returncode == 0, finished.stderr
    names = [step["name"] for step in open_run(tmp_path / "run").facts["steps"]]
    assert names[-4:-1] == [f"snapshot of cycle {cycle}" for cycle in (1, 2, 3)]
    assert names[-1] == f"mean {'weights' if average == 'weights' else 'predictions'} of 3 snapshots"
    snapshots = [load_file(tmp_path / f"run/snapshots/cycle-{cycle}.safetensors") for cycle in (1, 2, 3)]
    final = weights(tmp_path / "run")
    if average == "weights":
        name = "head.6.weight"
        np.testing.assert_allclose(final[name], np.mean([s[name] for s in snapshots], 0), rtol=1e-5)
    else:
        prefix = "members.{}.head.6.weight" if average == "networks" else "head.members.{}.6.weight"
        of_snapshot = "head.6.weight" if average == "networks" else "6.weight"
        for number, snapshot in enumerate(snapshots):
            assert np.array_equal(final[prefix.format(number)], snapshot[of_snapshot])
    if average != "weights":  # which are one network's again, as any other's
        exported = run_here(
            "export", "bundle", "--run", tmp_path / "run", "--models", tmp_path / "models", "--name", "pets"
        )
        assert exported.returncode == 0, exported.stderr


def test_sizes_grow_between_stages_and_the_last_is_deployed(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    finished = fit(recipes / "growing.yaml", drawings, tmp_path / "run", shared_cache)
    assert finished.returncode == 0, finished.stderr
    run = open_run(tmp_path / "run")
    assert [(step["name"], step["size"]) for step in run.facts["steps"]] == [
        ("head", 32),
        ("whole", 32),
        ("whole at 48", 48),
    ]
    assert run.preprocess.crop == 48


def killed_in_epoch(epoch: int, *arguments: str) -> int:
    """`python -m training arguments…`, killed after it has reported an epoch."""
    recorded = fit_module.recorded

    @contextmanager
    def recording(*folder: Any) -> Iterator[Any]:
        with recorded(*folder) as record:

            def record_and_die(result: Any) -> None:
                record(result)
                if result.epoch == epoch:
                    os.kill(os.getpid(), signal.SIGKILL)

            yield record_and_die

    fit_module.recorded = recording
    return main_of("training", *arguments)


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_fit_resumes_to_the_same_weights_bit_for_bit(
    epoch: int, recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path, course: Path
) -> None:
    arguments = ["fit", "--recipe", str(recipes / "course.yaml"), "--data", str(drawings)]
    arguments += ["--run", str(tmp_path / "run"), "--cache", str(shared_cache), "--checkpoint-every", "0"]
    killed = WarmProcess(killed_in_epoch, epoch, *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run").exists()
    if epoch > 1:  # the first is over before there is anything to go on from
        checkpoint = partial_folder(tmp_path / "run") / "checkpoint.pt"
        assert torch.load(checkpoint, weights_only=True)["history"]
        refused = run_here("training", *arguments)
        assert refused.returncode == 1
        assert "--resume" in refused.stderr
        other = run_here("training", *arguments, "--resume", "--stages.whole.lr", "0.5")
        assert other.returncode == 1
        assert "stages.whole.lr: [0.5] now, [0.0001, 0.001, 0.01] then" in other.stderr
    resumed = run_here("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    undisturbed, gone_on = weights(course), weights(tmp_path / "run")
    assert all(np.array_equal(undisturbed[name], gone_on[name]) for name in undisturbed)
    lines = [(folder / "history.jsonl").read_text().splitlines() for folder in (course, tmp_path / "run")]
    histories = [[json.loads(line) for line in each] for each in lines]
    for before, after in zip(*histories, strict=True):
        for name in ("epoch", "stage", "lr", "train_loss", "valid_loss", "valid_accuracy"):
            assert before[name] == after[name]
    assert open_run(tmp_path / "run").facts["metrics"] == open_run(course).facts["metrics"]


def test_a_checkpoint_of_other_images_is_rejected(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(drawings, data)
    arguments = ["fit", "--recipe", str(recipes / "whole.yaml"), "--data", str(data)]
    arguments += ["--run", str(tmp_path / "run"), "--cache", str(shared_cache), "--checkpoint-every", "0"]
    WarmProcess(killed_in_epoch, 2, *arguments).finish()
    next((data / "train/cats").iterdir()).unlink()
    refused = run_here("training", *arguments, "--resume")
    assert refused.returncode == 1
    assert "images: " in refused.stderr
    assert "--resume to continue" not in refused.stderr  # it would be refused again
    assert "Traceback" not in refused.stderr


def test_resuming_without_a_checkpoint_is_rejected(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    finished = fit(recipes / "whole.yaml", drawings, tmp_path / "run", shared_cache, "--resume")
    assert finished.returncode == 1
    assert "no unfinished run" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_the_fit_with_step_learning_rate_and_advice(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    finished = fit(
        recipes / "whole.yaml", drawings, tmp_path / "run", shared_cache, "--lr", "100", "--checkpoint-every", "0"
    )
    assert finished.returncode == 1
    assert "is nan at its step" in finished.stderr or "is inf at its step" in finished.stderr
    assert "--stages.whole.lr" in finished.stderr
    assert not (tmp_path / "run").exists()


def test_two_processes_give_the_result_of_one(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    recipe = recipes / "processes.yaml"
    assert fit(recipe, drawings, tmp_path / "one", shared_cache).returncode == 0
    arguments = (
        "fit",
        "--recipe",
        recipe,
        "--data",
        drawings,
        "--run",
        tmp_path / "two",
        "--cache",
        tmp_path / "cache",
    )
    for finished in two_processes(main_of, "training", *arguments):
        assert finished.returncode == 0, finished.stderr
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert two.facts["processes"] == 2
    assert two.facts["metrics"]["n"] == one.facts["metrics"]["n"] == 16
    assert two.facts["activations"] == {"computed": 48, "reused": 0}
    assert two.facts["metrics"]["nll"]["value"] == pytest.approx(one.facts["metrics"]["nll"]["value"], abs=1e-3)
    histories = [
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (one.folder, two.folder)
    ]
    # rounding grows from step to step, faster than anything else: the next test holds what one step does
    for first, second in zip(*histories, strict=True):
        assert second["train_loss"] == pytest.approx(first["train_loss"], rel=0.02)
        assert second["valid_loss"] == pytest.approx(first["valid_loss"], rel=0.02)
    for name, tensor in weights(tmp_path / "one").items():
        np.testing.assert_allclose(weights(tmp_path / "two")[name], tensor, rtol=0.05, atol=0.02, err_msg=name)


def one_step() -> int:
    """A step in one of two processes, and the same step in a single process."""
    cpu = Hardware(torch.device("cpu"), None, 0)
    with joined_processes(cpu.device) as processes:
        torch.manual_seed(0)
        body = Body(describe_backbone("test_resnet"))
        together = Classifier(body, Head(count_features(body, 32), 2, (0.0, 0.0)))
        alone = copy.deepcopy(together)
        trainers = [
            Trainer(
                network,
                layer_groups(network, 3),
                first=0,
                momentum=0.9,
                weight_decay=0.0,
                freeze_bn=False,
                hardware=cpu,
                processes=group,
            )
            for network, group in ((together, processes), (alone, ProcessGroup()))
        ]
        images = torch.randint(256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
        for trainer in trainers:
            trainer.train()
            mine = slice(trainer.processes.rank, None, trainer.processes.count)
            trainer.step(images[mine], labels[mine], rows=7, rates=[0.01] * 3)
        torch.testing.assert_close(together.state_dict(), alone.state_dict(), rtol=1e-3, atol=2e-5)
        parts = [np.arange(rank, 7, processes.count) for rank in range(processes.count)]
        assert torch.equal(processes.join_rows(torch.from_numpy(parts[processes.rank]), parts), torch.arange(7))
    left = {task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    # such a thread may need Python to free a tensor when Python is ending already, which aborts the process
    assert not {name for name in left if "gloo" in name}, left
    return 0


def test_a_step_of_two_processes_equals_a_step_of_one() -> None:
    for finished in two_processes(one_step):
        assert finished.returncode == 0, finished.stderr


def test_a_run_is_evaluated_on_another_folder_with_its_own_temperature(course: Path, drawings: Path) -> None:
    finished = run_here("training", "evaluate", "--run", course, "--data", drawings / "valid", "--views", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    figures, facts = json.loads(finished.stdout), open_run(course).facts
    assert figures["metrics"]["correct"] == facts["metrics"]["correct"]
    assert figures["confusion_matrix"] == facts["confusion_matrix"]
    assert figures["temperature"] == facts["temperature"]
    assert figures["test_time"][0]["metrics"]["correct"] == facts["test_time"][0]["metrics"]["correct"]


def test_other_classes_are_rejected_with_both_lists(course: Path, drawings: Path, tmp_path: Path) -> None:
    shutil.copytree(drawings / "valid", tmp_path / "valid")
    (tmp_path / "valid/dogs").rename(tmp_path / "valid/foxes")
    finished = run_here("training", "evaluate", "--run", course, "--data", tmp_path)
    assert finished.returncode == 1
    assert "run:  cats, dogs" in finished.stderr
    assert "data: cats, foxes" in finished.stderr


def test_an_evaluation_names_the_files_that_it_leaves_out(course: Path, drawings: Path, tmp_path: Path) -> None:
    shutil.copytree(drawings / "valid", tmp_path / "photos")
    (tmp_path / "photos/cats/notes.jpg").write_text("not a cat")
    finished = run_here("training", "evaluate", "--run", course, "--data", tmp_path / "photos")
    assert finished.returncode == 0
    assert "left out: 1 file or folder\n" in finished.stderr
    assert f"{tmp_path}/photos/cats/notes.jpg: NOT_AN_IMAGE" in finished.stderr


def test_find_lr_plots_and_suggests(recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path) -> None:
    finished = run_here(
        *("training", "find-lr", "--recipe", recipes / "course.yaml", "--data", drawings, "--stage", "whole"),
        *("--plot", tmp_path / "lr.png", "--cache", shared_cache, "--json"),
    )
    assert finished.returncode == 0, finished.stderr
    curve = json.loads(finished.stdout)
    assert set(curve["suggestions"]) == {"recipe", "steepest", "valley"}
    assert len(curve["lrs"]) == len(curve["losses"]) > 20
    assert (tmp_path / "lr.png").read_bytes()[:4] == b"\x89PNG"
    assert all(curve["lrs"][0] < rate < curve["lrs"][-1] for rate in curve["suggestions"].values())  # no end of it
    refused = run_here("training", "find-lr", "--data", drawings, "--stage", "tail")
    assert refused.returncode == 2
    assert "there are head" in refused.stderr


def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.fitting import checkpoint

    write, written = checkpoint.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    finished = fit(recipes / "whole.yaml", drawings, tmp_path / "run", shared_cache, "--checkpoint-every", "0")
    assert finished.returncode == 1
    assert "No space left on device" in finished.stderr
    assert "--resume to continue" in finished.stderr
    assert torch.load(written[0], weights_only=True)["epoch"] == 1
