"""Adaptive test-time augmentation: more views only of what is uncertain, and then the answer of all views."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.adaptive import choose
from serving.client import Client, Prediction
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.images import encoded
from tests.support.servers import running_server

RED = encoded(Image.new("RGB", (60, 50), "red"), "PNG")
GREY = encoded(Image.effect_noise((60, 50), 60).convert("RGB"), "PNG")


def views(outcome: object) -> int:
    assert isinstance(outcome, Prediction), outcome
    return outcome.views


def test_only_uncertain_pictures_are_looked_at_again_and_answered_as_with_all_views(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", adaptive={"threshold": 0.9})
    with running_server(tmp_path / "models", tmp_path / "state") as address, Client(address) as client:
        assert client.list_models()[0].adaptive_threshold == 0.9
        adaptive = client.classify([RED, GREY, b"no picture", GREY], adaptive=True).results
        assert [views(outcome) for outcome in (adaptive[0], adaptive[1], adaptive[3])] == [1, 5, 5]
        assert not isinstance(adaptive[2], Prediction)
        assert adaptive[1].classes == client.classify([GREY], views=5).results[0].classes  # type: ignore[union-attr]
        assert [views(outcome) for outcome in client.classify([GREY], adaptive=True, views=3).results] == [3]
        (tmp_path / "red.png").write_bytes(RED)
        finished = run("serving", "predict", tmp_path / "red.png", "--adaptive", "--json", "--server", address)
        assert '"views": 1' in finished.stdout


def test_a_version_without_a_threshold_looks_at_all_views(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address, Client(address) as client:
        assert not client.list_models()[0].HasField("adaptive_threshold")
        assert views(client.classify([RED], adaptive=True).results[0]) == 5


@pytest.mark.parametrize(
    ("changed", "allowed", "again", "threshold"),
    [
        ([], 0, 1, 0.55),  # nobody changes an answer: still the least sure photo is looked at again
        ([0.6, 0.8], 0, 1, 0.85),  # above the surest photo whose answer changes
        ([0.6, 0.8], 1, 1, 0.65),  # one of them may
        ([0.6], 0, 3, 0.75),
    ],
)
def test_the_threshold_lies_above_all_changed_answers_but_those_allowed(
    changed: list[float], allowed: int, again: int, threshold: float
) -> None:
    confidence_N = np.array([0.9, 0.5, 0.8, 0.6, 0.7])
    changed_N = np.isin(confidence_N, changed)
    assert choose(confidence_N, changed_N, allowed=allowed, again=again) == pytest.approx(threshold)


def test_without_a_surer_photo_the_threshold_lies_just_above_the_last() -> None:
    assert 0.8 < choose(np.array([0.5, 0.8]), np.array([False, True]), allowed=0, again=1) < 0.8001
    assert choose(np.array([1.0, 1.0]), np.array([False, True]), allowed=0, again=1) == 1.0
