"""Test-time augmentation: the number of views of a request, their average, and adaptive requests."""

from pathlib import Path

import numpy as np
from PIL import Image

from serving.bundle.manifest import open_bundle
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


def test_the_operator_chooses_the_views_of_a_request_that_names_no_number(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", recommended_views=3, adaptive={"threshold": 1.0, "views": 4})
    for options, expected in (((), 1), (("--views", "recommended"), 3), (("--views", "2"), 2)):
        with (
            running_server(tmp_path / "models", tmp_path / "state", *options) as address,
            Client(address) as client,
        ):
            assert views(client.classify([GREY]).results[0]) == expected
            assert views(client.classify([GREY], views=1).results[0]) == 1
            assert views(client.classify([GREY], adaptive=True).results[0]) == 4  # of the threshold
            (model,) = client.list_models()
            assert (model.default_views, model.recommended_views, model.adaptive_views) == (expected, 3, 4)


def test_the_views_show_the_whole_image_and_their_geometric_mean_is_served(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "models", temperature=2.0, temperatures={1: 2.0, 3: 0.5})
    image = Image.new("RGB", (300, 100), (90, 80, 70))
    image.paste((70, 90, 80), (0, 0, 70, 100))  # neither end is in the centre crop
    image.paste((60, 70, 90), (230, 0, 300, 100))
    data = encoded(image, "PNG")
    with running_server(tmp_path / "models", tmp_path / "state") as address, Client(address) as client:
        one, three = (client.classify([data], views=count).results[0] for count in (1, 3))
    views_VHWC = open_bundle(folder).manifest.preprocess.views(data, 3)
    logits_VK = views_VHWC.mean((1, 2))[:, ::-1] / 8  # what the network computes: blue, green, red
    for outcome, expected_K in ((one, logits_VK[0]), (three, 2.0 / 0.5 * logits_VK.mean(0))):
        assert isinstance(outcome, Prediction), outcome
        powers_K = np.exp(expected_K - expected_K.max())
        served = dict(outcome.classes)
        found_K = [served[name] for name in ("blue", "green", "red")]
        np.testing.assert_allclose(found_K, powers_K / powers_K.sum(), atol=1e-4)
