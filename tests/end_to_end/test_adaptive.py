"""Adaptive test-time augmentation: all views of an image only if the first has a low confidence."""

from pathlib import Path

from PIL import Image

from serving.client import Client, Prediction
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

RED = encoded(Image.new("RGB", (60, 50), "red"), "PNG")
GREY = encoded(Image.effect_noise((60, 50), 60).convert("RGB"), "PNG")


def views(outcome: object) -> int:
    assert isinstance(outcome, Prediction), outcome
    return outcome.views


def test_only_images_of_low_confidence_get_all_views(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", adaptive={"threshold": 0.9})
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        assert client.list_models()[0].adaptive_threshold == 0.9
        adaptive = client.classify([RED, GREY, b"no image", GREY], adaptive=True).results
        assert [views(outcome) for outcome in (adaptive[0], adaptive[1], adaptive[3])] == [1, 5, 5]
        assert not isinstance(adaptive[2], Prediction)
        assert adaptive[1].classes == client.classify([GREY], views=5).results[0].classes  # type: ignore[union-attr]
        assert [views(outcome) for outcome in client.classify([GREY], adaptive=True, views=3).results] == [3]
        (tmp_path / "red.png").write_bytes(RED)
        finished = run("serving", "predict", tmp_path / "red.png", "--adaptive", "--json", "--server", address)
        assert '"views": 1' in finished.stdout


def test_a_version_without_a_threshold_computes_all_views(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        assert not client.list_models()[0].HasField("adaptive_threshold")
        assert views(client.classify([RED], adaptive=True).results[0]) == 5
