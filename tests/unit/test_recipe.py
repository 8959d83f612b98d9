"""Recipes: settings, their checks, files and descriptions."""

from pathlib import Path

import pytest

from training.recipes.describe import describe_recipe
from training.recipes.presets import PRESETS
from training.recipes.recipe import Recipe, differences
from training.recipes.stage import Stage


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_written_down_is_the_same_when_read_again(name: str, tmp_path: Path) -> None:
    recipe = PRESETS[name]()
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert Recipe.load(tmp_path / "recipe.yaml").fingerprint() == recipe.fingerprint()


def test_every_setting_is_part_of_the_fingerprint() -> None:
    recipe = PRESETS["course"]()
    changed = [
        Recipe(**(vars(recipe) | {"seed": 1})),
        Recipe(**(vars(recipe) | {"sizes": (128,)})),
        Recipe(**(vars(recipe) | {"stages": dict(list(recipe.stages.items())[:2])})),
        Recipe(**(vars(recipe) | {"stages": recipe.stages | {"whole": Stage(freeze_to=0)}})),
    ]
    assert len({recipe.fingerprint(), *(other.fingerprint() for other in changed)}) == 5


def test_the_course_preset_has_the_stages_of_the_course() -> None:
    course = PRESETS["course"]()
    head, augmented, upper = course.stages.values()
    assert course.keep == "best"
    assert head.learn_from == "activations"
    assert (augmented.learn_from, augmented.views) == ("activations", 8)
    assert (upper.freeze_to, len(upper.lr), upper.augment) == (1, 3, "varied")
    assert upper.lr[0] < upper.lr[1] < upper.lr[2]
    assert upper.lr[2] <= 0.01 / 5  # a head's rate on activations distorts the layers below it


def test_epochs_are_counted_with_integers() -> None:
    assert Stage(cycles=3, cycle_len=1, cycle_mult=2).epochs == 7
    assert Stage(cycles=4, cycle_len=2, cycle_mult=1).epochs == 8
    assert Stage(cycles=2, cycle_len=1, cycle_mult=3).epochs == 4


def test_several_sizes_repeat_the_stages() -> None:
    recipe = Recipe(sizes=(128, 224), stages=PRESETS["course"]().stages)
    assert [(step.name, step.size) for step in recipe.steps()] == [
        ("head", 128),
        ("augmented", 128),
        ("upper", 128),
        ("head at 224", 224),
        ("augmented at 224", 224),
        ("upper at 224", 224),
    ]
    assert recipe.epochs == 2 * (7 + 7 + 2)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"lr": (0.1, float("nan"))}, "lr is nan"),
        ({"lr": ()}, "lr is empty"),
        ({"schedule": "cosine"}, "must be one of sgdr, one-cycle, step, constant"),
        ({"cycles": 30, "cycle_mult": 10}, "at most 10,000"),
        ({"learn_from": "activations", "freeze_to": 0}, "only the head is trained"),
        ({"learn_from": "activations", "lr": (0.1, 0.2)}, "only the head is trained"),
        ({"views": 2}, "fixed views are for activations"),
    ],
)
def test_an_invalid_stage_is_rejected(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Stage(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"sizes": (8,)}, "sizes is 8"),
        ({"stages": {}}, "at least one stage"),
        ({"groups": 2, "stages": {"whole": Stage(freeze_to=2)}}, "between -1 and 1"),
        ({"average": "weights", "stages": {"head": Stage()}}, "one snapshot"),
        ({"dropout": (0.5, 1.0)}, "below 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_an_invalid_recipe_is_rejected(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Recipe(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("arch: resnet18\nlearning_rate: 1", "sets learning_rate"),
        ("stages: {head: {rate: 1}}", "stage head sets rate"),
        ("stages: [head]", "mapping"),
        ("- 1", "is no recipe"),
        ("arch: [", "is not YAML"),
        ("stages: {head: {lr: -1}}", "lr is -1"),
        ("momentum: much", "recipe.yaml: momentum of a recipe is 'much'; it must be a number"),
        ("dropout: 5", r"dropout is 5; it must be a list of two numbers"),
        ("sizes: 64", r"sizes is 64; it must be a list of whole numbers"),
        ("sizes: [64.5]", r"sizes is \[64.5\]; it must be a list of whole numbers"),
        ("dropout: [0.1, true]", r"dropout is \[0.1, True\]; it must be a list of two numbers"),
        ("batch_size: 1.5", "batch_size of a recipe is 1.5; it must be a whole number"),
        ("freeze_bn: maybe", "freeze_bn of a recipe is 'maybe'; it must be true or false"),
        ("arch: 34", "arch of a recipe is 34; it must be text"),
        ("stages: {head: {cycles: true}}", "cycles of a stage is True; it must be a whole number"),
    ],
)
def test_an_invalid_recipe_file_is_rejected_with_the_reason(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_file_may_give_a_single_learning_rate_and_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 3\nstages: {only: {lr: 0.5, freeze_to: 0, weight_decay: 1e-3}}")
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert recipe == Recipe(seed=3, stages={"only": Stage(lr=(0.5,), freeze_to=0, weight_decay=1e-3)})


def test_photos_is_the_former_name_of_images() -> None:
    assert Stage(learn_from="photos") == Stage(learn_from="images")


def test_differences_name_each_setting_with_both_values() -> None:
    ours, theirs = Recipe(seed=1).as_fields(), PRESETS["course"]().as_fields()
    lines = differences(ours, theirs)
    assert "seed: 1 now, 0 then" in lines
    assert any(line.startswith("stages.upper: None now") for line in lines)
    assert differences(ours, ours) == []


def test_the_description_lists_each_step_and_settings_without_effect() -> None:
    recipe = Recipe(
        arch="resnet34",
        average="weights",
        views=5,
        stages={
            "head": Stage(learn_from="activations", augment="side-on"),
            "whole": Stage(freeze_to=0, cycles=2, cycle_mult=2, lr=(1e-4, 1e-3, 1e-2), find_lr="use"),
        },
    )
    described = "\n".join(describe_recipe(recipe))
    assert "1. head: train the head, on precomputed activations" in described
    assert "2. whole: train the whole network, on images; no augmentation; find a learning rate and use it" in described
    assert "0.0001, 0.001, 0.01 for 1 + 2 epochs" in described
    assert "average the weights" in described
    assert "averages over up to 5" in described
    assert "augment side-on of stage head has no effect" in described


def test_the_description_counts_one_epoch() -> None:
    one = Recipe(stages={"head": Stage(learn_from="activations")})
    assert "; 1 epoch in all" in "\n".join(describe_recipe(one))


def test_the_description_notes_that_there_is_nothing_to_compile() -> None:
    said = "--compile has no effect"
    assert said in "\n".join(describe_recipe(Recipe(compile=True)))
    assert said not in "\n".join(describe_recipe(Recipe()))
    assert said not in "\n".join(describe_recipe(Recipe(compile=True, stages={"whole": Stage(freeze_to=0)})))
