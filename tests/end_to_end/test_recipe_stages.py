"""Single features of a recipe: frozen layers, seeds, snapshots, growing sizes, learning rates."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.commands import run_here
from tests.support.recipes import TINY, fit, weights
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.run import open_run

pytestmark = pytest.mark.slow


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
        ("head at 48", 48),
        ("whole at 48", 48),
    ]
    assert run.preprocess.crop == 48


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
    rejected = run_here("training", "find-lr", "--data", drawings, "--stage", "tail")
    assert rejected.returncode == 2
    assert "there are head" in rejected.stderr
