"""Drift of a real server's predictions: over the API, as metrics and on the terminal."""

from pathlib import Path

import pytest
from PIL import Image

from serving.bundle.validation import ValidationPredictions
from serving.client import Client
from tests.support.bundles import COLOURS, write_bundle
from tests.support.commands import run
from tests.support.http import ask
from tests.support.images import encoded
from tests.support.servers import http_server, observed_server
from tests.support.waiting import LIMIT_S, eventually

RED, GREEN, BLUE = (encoded(Image.new("RGB", (64, 64), shade), "PNG") for shade in ("red", "#00ff00", "blue"))
METRICS = {"accuracy": {"value": 0.9, "lower": 0.8, "upper": 0.95}, "n": 10}
KEY = {"model": "colours", "version": "1"}


COUNTED = ValidationPredictions.count([0, 1, 2] * 300, [0.4] * 45 + [0.5] * 855, 3)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", metrics=METRICS | {"predictions": COUNTED.to_fields()})
    return tmp_path


def test_drift_shows_in_the_api_on_the_terminal_and_over_http(served: Path) -> None:
    with http_server(served) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([RED, GREEN, BLUE] * 10)
        assert eventually(lambda: client.statistics())
        (early,) = client.statistics()
        assert early.drift.predictions == 30
        assert not early.drift.alarm
        assert not any(each.HasField("p_value") for each in early.drift.distributions)

        client.classify([RED, GREEN, BLUE] * 10)
        (usual,) = client.statistics()
        assert usual.drift.predictions == 60
        assert usual.drift.validation_images == 900
        classes, _ = usual.drift.distributions
        assert classes.name == "classes"
        assert classes.p_value > 0.9
        assert not classes.alarm

        for _ in range(4):
            client.classify([RED] * 50)
        (drifted,) = client.statistics()
        classes, confidences = drifted.drift.distributions
        assert drifted.drift.predictions == drifted.drift.window == 200
        assert drifted.drift.alarm
        assert classes.alarm
        assert classes.p_value < 1e-20
        shares = {each.label: (round(each.expected, 3), each.share) for each in classes.bins}
        assert shares == {name: (0.333, float(name == "red")) for name in COLOURS}
        assert sum(each.share for each in confidences.bins) == pytest.approx(1)

        shown = run("serving", "stats", "--server", server.address)
        assert "drift of the last 200 predictions" in shown.stdout
        assert "differs: red 100% instead of 33%" in shown.stdout
        over_http = ask(server.url, "/v1/statistics").json()["models"][0]["drift"]
        assert over_http["alarm"] is True
        assert over_http["distributions"][0]["name"] == "classes"


def test_drift_is_exported_as_metrics(served: Path) -> None:
    with observed_server(served) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        of_classes = KEY | {"distribution": "classes"}
        assert server.metric("pawserve_drift_predictions", **KEY) == 0
        assert server.metric("pawserve_drift_alarm", **of_classes) is None
        client.classify([RED, GREEN, BLUE] * 20)
        assert server.metric("pawserve_drift_alarm", **of_classes) == 0
        for _ in range(4):
            client.classify([RED] * 50)
        assert server.metric("pawserve_drift_predictions", **KEY) == 200
        assert server.metric("pawserve_drift_alarm", **of_classes) == 1
        assert (server.metric("pawserve_drift_p_value", **of_classes) or 1) < 1e-20
        assert (server.metric("pawserve_drift_stability_index", **of_classes) or 0) > 1


def test_a_bundle_without_a_reference_raises_no_alarm(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        for _ in range(5):
            client.classify([RED] * 50)
        assert eventually(lambda: client.statistics())
        (statistics,) = client.statistics()
        assert not statistics.drift.alarm
        assert statistics.drift.unavailable == "no reference in the bundle: export the run again"
        assert not statistics.drift.distributions
        assert server.metric("pawserve_drift_alarm", **KEY, distribution="classes") is None
        assert "drift: no reference in the bundle" in run("serving", "stats", "--server", server.address).stdout


def test_a_shadow_version_has_a_window_of_its_own(served: Path) -> None:
    write_bundle(served / "models", version=2, metrics=METRICS | {"predictions": COUNTED.to_fields()})
    with http_server(served, "--shadow", "colours/2") as server, Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([RED] * 60)
        assert eventually(lambda: [each.drift.predictions for each in client.statistics()] == [60, 60])
        assert [each.drift.alarm for each in client.statistics()] == [True, True]
