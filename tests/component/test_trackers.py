"""Trackers that fail while a run is trained: what is said, and that nothing else is lost."""

import sys
from pathlib import Path

import pytest

from tests.support.trackers import needs, read_wandb
from training.fitting.loop import EpochResult
from training.tracking.tracker import TrackedRun
from training.tracking.trackers import tracked

pytestmark = pytest.mark.slow


def epoch(number: int) -> EpochResult:
    return EpochResult("head", number, 0.01, 1 / number, 2 / number, 1 - 0.5 / number, 100.0, 1.0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()
    return TrackedRun("pets", tmp_path / "run", {"arch": "resnet34"})


@needs("mlflow", "wandb")
def test_a_tracker_that_fails_is_reported_once_and_the_others_go_on(
    run: TrackedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracked(["mlflow", "wandb"], run) as trackers:
        trackers.log_epoch(epoch(1))
        (tmp_path / "runs.db").write_bytes(b"this is no database" * 1000)
        for number in (2, 3):
            trackers.log_epoch(epoch(number))
        trackers.log_results({"final/accuracy": 0.9}, [])

    import wandb

    wandb.teardown()  # waits until the file is written, as the end of a process does
    said = capsys.readouterr().err
    assert said.count("warning: MLflow: not written from here on") == 1
    assert "history.jsonl has the same figures; the fit goes on" in said
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = read_wandb(file)
    assert [line["_step"] for line in written.history] == [1, 2, 3]
    assert [line["loss/validation"] for line in written.history] == pytest.approx([2, 1, 2 / 3])
    assert written.summary["final/accuracy"] == 0.9


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    name: str, run: TrackedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as Python marks a module that cannot be imported
    with tracked([name, "tensorboard"], run) as trackers:  # type: ignore[list-item]
        said = " ".join(capsys.readouterr().err.split())
        assert f"not used: {name} is not installed: pip install 'pawserve[{name}]'; the fit goes on" in said
        trackers.log_epoch(epoch(1))
    assert list((run.folder / "tensorboard").glob("events.out.tfevents.*"))


@needs("mlflow")
def test_a_run_that_ends_with_an_error_is_marked_as_failed(run: TrackedRun) -> None:
    from mlflow import MlflowClient

    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), tracked(["mlflow"], run):
            raise error
        client = MlflowClient()
        experiment = client.get_experiment_by_name("pawserve")
        (newest, *_) = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
        assert newest.info.status == status
        assert newest.data.params == {"arch": "resnet34"}
