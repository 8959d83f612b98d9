"""What trackers are told of a run, and what messages about them leave out."""

import pytest

from training.recipes.presets import PRESETS
from training.tracking.tracker import flattened, without_secrets


def test_parameters_are_all_settings_of_the_recipe_by_their_dotted_names() -> None:
    recipe = PRESETS["course"]()
    params = flattened(recipe.as_fields())
    assert params["arch"] == recipe.arch
    assert params["dropout"] == "0.25, 0.5"
    assert params["head_width"] is None
    for name, stage in recipe.stages.items():
        assert params[f"stages.{name}.cycles"] == stage.cycles
        assert {key for key in params if key.startswith(f"stages.{name}.")} == {
            f"stages.{name}.{setting}" for setting in vars(stage)
        }
    assert {name.split(".")[0] for name in params} == set(recipe.as_fields())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://anna:hunter2@host:5000/x failed", "at http://***@host:5000/x failed"),
        ("postgresql://u:p@ss@db/runs and more", "postgresql://***@db/runs and more"),
        ("GET /?experiment=a&access_token=abc.def&page=2", "GET /?experiment=a&access_token=***&page=2"),
        ("X-Amz-Signature=0a1b2c", "X-Amz-Signature=***"),
        ("401: key 0123456789abcdef is not valid", "401: key *** is not valid"),
        ("max_key_length is 40 of sqlite:////tmp/m.db", "max_key_length is 40 of sqlite:////tmp/m.db"),
    ],
)
def test_messages_have_no_secrets(text: str, shown: str) -> None:
    environment = {"WANDB_API_KEY": "0123456789abcdef", "HOME": "/tmp/m.db", "SHORT_KEY": "is"}
    assert without_secrets(text, environment) == shown
