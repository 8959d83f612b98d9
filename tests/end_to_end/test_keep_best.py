"""`fit --keep best`: steps are tried on held-out training images, and only those that improve are run."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.support.commands import WarmProcess, main_of, run_here
from tests.support.recipes import TINY
from training.fitting import selection
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.folder import partial_folder
from training.runs.run import open_run

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    **TINY,
    keep="best",
    average="weights",
    stages={
        "untrained": Stage(learn_from="activations", lr=(1e-8,)),
        "head": Stage(learn_from="activations", lr=(0.01,), cycle_len=30, weight_decay=0.01),
        "destroyed": Stage(freeze_to=0, lr=(0.5,), cycles=2, augment="side-on"),
    },
)


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model.safetensors")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "best.yaml"
    RECIPE.save(path)
    return path


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light and dark images with noise, which even a head on a network with random weights learns."""
    folder, rng = tmp_path_factory.mktemp("data") / "squares", np.random.default_rng(0)
    for part, count in (("train", 20), ("valid", 8)):
        for name, grey in (("dogs", 90), ("cats", 160)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(grey, 30, (40, 40, 3)) + rng.normal(0, 25), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def best(recipe: Path, squares: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "best"
    finished = run_here("training", "fit", "--recipe", recipe, "--data", squares, "--run", run, "--cache", shared_cache)
    assert finished.returncode == 0, finished.stderr
    assert "these steps improve on those before, and are run: untrained, head" in finished.stderr
    assert "the last step is left out, so no weights are averaged" in finished.stderr
    assert "after head" in finished.stderr
    return run


def test_a_step_that_improves_is_run_and_one_that_does_not_is_left_out(best: Path) -> None:
    facts = open_run(best).facts
    untrained, head, destroyed = facts["trials"]
    assert (untrained["part"], destroyed["part"]) == (1, 0)
    assert head["part"] > 0
    assert [untrained["images"], head["images"]] == [facts["data"]["train"]] * 2
    assert [step["name"] for step in facts["steps"]] == ["untrained", "head"]
    assert facts["steps"][1]["part"] == head["part"]
    assert facts["average"] == "none"
    assert facts["seconds"]["try steps"] > 0
    history = [json.loads(line) for line in (best / "history.jsonl").read_text().splitlines()]
    assert {epoch["stage"] for epoch in history} == {"untrained", "head"}
    assert [epoch["epoch"] for epoch in history] == list(range(1, 32))
    report = (best / "report.html").read_text()
    assert "Steps tried on held-out training images" in report
    assert "destroyed" in report
    assert not (best / "halves").exists()


def test_the_kept_steps_give_the_weights_that_they_give_without_the_others(
    best: Path, recipe: Path, squares: Path, shared_cache: Path, tmp_path: Path
) -> None:
    stages = dict(list(RECIPE.stages.items())[:2])
    alone = Recipe(**(vars(RECIPE) | {"keep": "last", "average": "none", "stages": stages}))
    alone.save(tmp_path / "alone.yaml")
    command = ["fit", "--recipe", tmp_path / "alone.yaml", "--data", squares, "--run", tmp_path / "run"]
    finished = run_here("training", *command, "--cache", shared_cache)
    assert finished.returncode == 0, finished.stderr
    part = open_run(best).facts["trials"][1]["part"]
    whole, kept = weights(tmp_path / "run"), weights(best)
    for name, tensor in whole.items():
        if name.startswith("body.") or part == 1:
            assert np.array_equal(kept[name], tensor)
    if part < 1:
        assert not np.array_equal(kept["head.6.weight"], whole["head.6.weight"])


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_a_fit_that_is_killed_while_it_tries_steps_resumes_to_the_same_weights(
    trials: int, recipe: Path, squares: Path, shared_cache: Path, tmp_path: Path, best: Path
) -> None:
    arguments = ["fit", "--recipe", str(recipe), "--data", str(squares), "--run", str(tmp_path / "run")]
    arguments += ["--cache", str(shared_cache), "--checkpoint-every", "0"]
    killed = WarmProcess(killed_before_judging, trials, *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (partial_folder(tmp_path / "run") / "checkpoint.pt").exists()
    resumed = run_here("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after 0 of" in resumed.stderr
    undisturbed, gone_on = weights(best), weights(tmp_path / "run")
    assert all(np.array_equal(undisturbed[name], gone_on[name]) for name in undisturbed)

    def without_seconds(run: Path) -> list[dict[str, object]]:
        return [trial | {"seconds": 0} for trial in open_run(run).facts["trials"]]

    assert without_seconds(tmp_path / "run") == without_seconds(best)


def killed_before_judging(trials: int, *arguments: str) -> int:
    """`python -m training arguments…`, killed when it has trained a step on both halves and judged so many."""
    judge, judged = selection.judge, []

    def judge_or_die(*of_step: object) -> object:
        if len(judged) == trials:
            os.kill(os.getpid(), signal.SIGKILL)
        judged.append(of_step)
        return judge(*of_step)  # type: ignore[arg-type]

    selection.judge = judge_or_die  # type: ignore[assignment]
    return main_of("training", *arguments)


def test_a_class_with_one_training_image_cannot_be_held_out(
    recipe: Path, squares: Path, shared_cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(squares, tmp_path / "images")
    for path in sorted((tmp_path / "images/train/dogs").iterdir())[1:]:
        path.unlink()
    command = ["fit", "--recipe", recipe, "--data", tmp_path / "images", "--run", tmp_path / "run"]
    refused = run_here("training", *command, "--cache", shared_cache)
    assert refused.returncode == 1
    assert "a single training image" in refused.stderr
    assert "dogs" in refused.stderr
    assert "--keep last" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert not partial_folder(tmp_path / "run").exists()
