"""What a shadow version computes is what it would answer if it was asked itself, bit for bit, and counts for it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.bundle.manifest import open_bundle
from serving.image.preprocess import Preprocess
from serving.models.image_data import ImageData
from tests.support.bundles import COLOURS, write_bundle
from tests.support.images import encoded, sample_image
from tests.support.shadows import ShadowedService, with_shadow

LARGE = sample_image().resize((900, 660))
IMAGES: list[ImageData] = [
    encoded(LARGE, "JPEG", quality=90),
    encoded(sample_image(), "PNG"),
    np.asarray(sample_image().rotate(90)),
]
SHADOWS: dict[str, dict[str, Any]] = {
    "same preprocessing": {"temperature": 3.0, "temperatures": {1: 3.0, 3: 2.0}},
    "another size": {"preprocess": Preprocess(resize=110, crop=64)},
    "another interpolation": {"preprocess": Preprocess(resize=72, crop=64, interpolation="bilinear")},
}


async def compare(served: ShadowedService, images: list[ImageData], classes: tuple[str, ...], **how: Any) -> None:
    """Assert that the shadow version computes what it answers itself."""
    asked = await served.classify(*images, version=2, **how)
    shadowed = await served.classify(*images, **how)
    await served.finished(len(images))
    assert served.images == {"ok": len(images)}
    await served.label(*((prediction, classes[0]) for prediction in shadowed))
    found = {
        bytes(row[0]): row[1:]
        for row in served.rows("SELECT id, shadow_version, shadow_predicted, shadow_probability FROM labels")
    }
    assert {prediction.record.shadow_version for prediction in shadowed} == {2}
    assert {prediction.record.shadow_version for prediction in asked} == {0}
    assert [found[prediction.record.id] for prediction in shadowed] == [
        (2, prediction.record.predicted, prediction.record.probability) for prediction in asked
    ]
    assert [each.views for each in asked] == [each.views for each in shadowed]
    assert served.budget.taken == 0


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("shadow", SHADOWS)
def test_a_shadow_version_computes_what_it_would_answer(tmp_path: Path, shadow: str, views: int) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2, **SHADOWS[shadow])

    async def test(served: ShadowedService) -> None:
        await compare(served, IMAGES, COLOURS, views=views)

    with_shadow(tmp_path, test)


@pytest.mark.parametrize(("views", "shadow"), [(1, "same"), (3, "same"), (1, "larger"), (3, "larger")])
def test_a_real_network_computes_as_a_shadow_what_it_would_answer(tmp_path: Path, views: int, shadow: str) -> None:
    exported = pytest.importorskip("tests.support.exported", reason="needs the training libraries")
    crop = 96
    first = exported.write_exported_bundle(tmp_path / "models", exported.LITE0, crop, "fp32").folder
    second = first.with_name("2")
    shutil.copytree(first, second)
    manifest = open_bundle(first).manifest
    preprocess = Preprocess(resize=crop if shadow == "same" else crop + 32, crop=crop)
    changed = replace(manifest, version=2, preprocess=preprocess, temperature=1.7, temperatures={1: 1.7, 3: 1.2})
    (second / "model.json").write_text(changed.to_json(), encoding="utf-8")
    pixels = exported.varied_images(300, 6)
    images: list[ImageData] = [encoded(Image.fromarray(each), "JPEG", quality=92) for each in pixels]

    async def test(served: ShadowedService) -> None:
        await compare(served, images, changed.classes, views=views)

    with_shadow(tmp_path, test, name="pets")


@pytest.mark.parametrize(("threshold", "views"), [(0.0, 1), (1.0, 4)])
@pytest.mark.parametrize("shadow", SHADOWS)
def test_the_shadow_averages_over_the_views_that_an_adaptive_request_has_computed(
    tmp_path: Path, shadow: str, threshold: float, views: int
) -> None:
    write_bundle(tmp_path / "models", adaptive={"threshold": threshold})
    write_bundle(tmp_path / "models", version=2, **SHADOWS[shadow])
    grey = encoded(Image.new("RGB", (90, 70), (130, 128, 126)), "PNG")  # all classes are about equally probable

    async def test(served: ShadowedService) -> None:
        (asked,) = await served.classify(grey, version=2, views=views)
        (shadowed,) = await served.classify(grey, views=4, adaptive=True)
        assert shadowed.views == views
        await served.finished(1)
        await served.label((shadowed, "red"))
        expected = (asked.record.predicted, asked.record.probability)
        assert served.rows("SELECT shadow_predicted, shadow_probability FROM labels") == [expected]

    with_shadow(tmp_path, test)


def test_predictions_count_for_each_version(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)

    async def test(served: ShadowedService) -> None:
        await served.classify(*IMAGES, IMAGES[0])
        await served.finished(4)
        assert {each.version.version: each.predictions for each in served.store.read()} == {1: 4, 2: 4}
        assert {each.version.version: each.confusion.total for each in served.store.read()} == {1: 0, 2: 0}

    with_shadow(tmp_path, test)


def test_a_share_of_the_requests_is_chosen(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    draws = iter([0.0, 0.24, 0.25, 0.9, 0.1])

    async def test(served: ShadowedService) -> None:
        chosen = [(await served.classify(*IMAGES[:2]))[0].record.shadow_version for _ in range(5)]
        assert chosen == [2, 2, 0, 0, 2]
        await served.finished(6)
        assert served.images == {"ok": 6}

    with_shadow(tmp_path, test, share=0.25, draw=lambda: next(draws))
