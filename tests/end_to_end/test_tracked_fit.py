"""`fit --log`: runs in a real MLflow store and in W&B's offline files, also of a fit that was killed and resumed."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import WarmProcess, free_port, run, run_cold
from tests.support.recipes import killed_in_epoch
from tests.support.trackers import needs, read_wandb
from training.recipes.recipe import Recipe
from training.tracking.tracker import flattened

pytestmark = pytest.mark.slow


def stores(folder: Path) -> dict[str, str]:
    """The trackers' own variables, for stores in a folder."""
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'runs.db'}", "WANDB_MODE": "offline"}


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=stores(folder)["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("pawserve")
    assert experiment is not None
    return [(client, found) for found in client.search_runs([experiment.experiment_id])]


@needs("mlflow", "wandb")
@pytest.mark.filterwarnings("ignore")  # of MLflow's, about SQLAlchemy, when its store is read
def test_a_killed_and_resumed_fit_is_one_run_with_params_metrics_and_artifacts(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    arguments = ["fit", "--recipe", str(recipes / "whole.yaml"), "--data", str(drawings), "--checkpoint-every", "0"]
    arguments += ["--run", str(tmp_path / "pets"), "--cache", str(shared_cache), "--log", "mlflow", "wandb"]
    killed = WarmProcess(killed_in_epoch, 2, *arguments, folder=tmp_path, **stores(tmp_path)).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ((_, unfinished),) = mlflow_runs(tmp_path)
    assert unfinished.info.status == "RUNNING"

    resumed = run_cold("training", *arguments, "--resume", WANDB_DIR=str(tmp_path), **stores(tmp_path))

    assert resumed.returncode == 0, resumed.stderr
    history = [json.loads(line) for line in (tmp_path / "pets/history.jsonl").read_text().splitlines()]
    facts = json.loads((tmp_path / "pets/run.json").read_text())
    ((client, found),) = mlflow_runs(tmp_path)
    assert found.info.run_id == unfinished.info.run_id
    assert (found.info.status, found.info.run_name) == ("FINISHED", "pets")
    assert f"MLflow: run {found.info.run_id} of experiment 'pawserve'" in resumed.stderr
    recipe = flattened(Recipe.load(recipes / "whole.yaml").as_fields())
    assert found.data.params == {"data": str(drawings), **{name: str(value) for name, value in recipe.items()}}
    for name, ours in (("loss/validation", "valid_loss"), ("accuracy/validation", "valid_accuracy")):
        logged = client.get_metric_history(found.info.run_id, name)
        assert [(each.step, each.value) for each in logged] == [(each["epoch"], each[ours]) for each in history]
    assert found.data.metrics["final/accuracy"] == facts["metrics"]["accuracy"]["value"]
    assert found.data.metrics["final/f1_macro"] == facts["class_report"]["macro"]["f1"]
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    for name in ("report.html", "model.safetensors", "run.json", "recipe.yaml"):
        assert (artifacts / name).read_bytes() == (tmp_path / "pets" / name).read_bytes()

    first, second = sorted(tmp_path.glob("wandb/offline-run-*"))
    (file,) = second.glob("*.wandb")
    written = read_wandb(file)
    assert first.name.endswith(f"-{written.run.run_id}")  # one run of W&B
    assert written.run.display_name == "pets"
    assert {name: written.config[name] for name in recipe} == recipe
    assert [line["_step"] for line in written.history] == [1, 2, 3, 4]  # a killed process loses what it did not flush
    assert [line["loss/training"] for line in written.history] == pytest.approx([e["train_loss"] for e in history])
    assert written.summary["final/accuracy"] == facts["metrics"]["accuracy"]["value"]
    assert set(written.artifacts) == {"report.html", "model.safetensors", "run.json", "recipe.yaml"}


@needs("mlflow")
def test_a_server_that_is_away_is_reported_without_its_password_and_the_run_is_whole(
    recipes: Path, drawings: Path, shared_cache: Path, tmp_path: Path
) -> None:
    named = {"recipe": recipes / "heads.yaml", "data": drawings, "run": tmp_path / "run", "cache": shared_cache}
    words = [word for name, value in named.items() for word in (f"--{name}", value)]
    away = f"http://anna:hunter2@127.0.0.1:{free_port()}"
    finished = run(
        *("training", "fit", *words, "--log", "mlflow"),
        MLFLOW_TRACKING_URI=away,
        MLFLOW_TRACKING_TOKEN="open-sesame",
    )
    assert finished.returncode == 0, finished.stderr
    said = finished.stderr
    assert said.index("warning: MLflow: not written from here on") < said.index("step 1 of")
    assert "hunter2" not in said
    assert "open-sesame" not in said
    assert (tmp_path / "run/run.json").exists()
    assert "hunter2" not in "".join(path.read_text() for path in (tmp_path / "run").glob("*.json*"))
