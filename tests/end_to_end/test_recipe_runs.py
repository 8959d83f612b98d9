"""Whole recipes on drawings, with a network of few layers: stages, resuming, processes, evaluation."""

import copy
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from tests.support.commands import WarmProcess, main_of, run_here, two_processes
from tests.support.recipes import fit, killed_in_epoch, weights
from training.distributed import ProcessGroup, joined_processes
from training.fitting.trainer import Trainer
from training.hardware import Hardware
from training.networks.layer_groups import layer_groups
from training.networks.model import Body, Classifier, Head, count_features, describe_backbone
from training.runs.folder import partial_folder
from training.runs.run import open_run

pytestmark = pytest.mark.slow


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
        rejected = run_here("training", *arguments)
        assert rejected.returncode == 1
        assert "--resume" in rejected.stderr
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
                layer_groups(network, 3, 0),
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
