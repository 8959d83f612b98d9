"""Activations that are computed, kept and found again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serving.image.preprocess import Preprocess
from training.data.image_files import read_images
from training.data.images import LabelledImage
from training.distributed import ProcessGroup
from training.features.activations import Activations
from training.features.provider import ActivationProvider
from training.hardware import Hardware
from training.networks.model import Body, describe_backbone
from training.networks.weights import fingerprint

FEW, MANY = 4, 256
"""Views of a command for which torch computes, and ONNX Runtime."""


@pytest.fixture(scope="module")
def body() -> Body:
    torch.manual_seed(0)
    return Body(describe_backbone("test_resnet")).eval()


@pytest.fixture
def images(drawings: Path) -> list[LabelledImage]:
    return read_images(drawings).train[:4]


def activations(body: Body, images: list[LabelledImage], cache: Path, max_views: int, *, views: int = 1) -> Activations:
    sha256, cpu = fingerprint(body.network.state_dict()), Hardware(torch.device("cpu"), None, 0)
    preprocess = Preprocess(crop=32, resize=36, interpolation="bilinear")
    provider = ActivationProvider(body, preprocess, sha256, cache, cpu, ProcessGroup(), max_views)
    return provider.activations(images, views=views, title="activations")


def rows(found: Activations) -> NDArray[np.float32]:
    return found.features(np.arange(len(found)))


def test_what_the_cache_holds_does_not_change_the_activations(
    body: Body, images: list[LabelledImage], tmp_path: Path
) -> None:
    fresh = activations(body, images, tmp_path / "fresh", FEW)
    activations(body, images, tmp_path / "used", MANY)  # by ONNX Runtime, whose graph is kept
    used = activations(body, images, tmp_path / "used", FEW)
    assert used.work is not None
    assert used.work.engine == "torch on cpu"
    assert np.array_equal(rows(fresh), rows(used))


def test_kept_activations_are_used_and_nothing_is_written(
    body: Body, images: list[LabelledImage], tmp_path: Path
) -> None:
    first = activations(body, images, tmp_path, MANY)

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = state()
    again = activations(body, images, tmp_path, MANY)
    assert (first.computed, again.computed) == (4, 0)
    assert np.array_equal(rows(first), rows(again))
    assert state() == before


def test_damaged_files_of_the_cache_are_computed_again(
    body: Body, images: list[LabelledImage], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = rows(activations(body, images, tmp_path, MANY))
    for path in tmp_path.rglob("*"):
        if path.name in ("body", "rows.f32"):
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2)
                file.write(bytes(path.stat().st_size // 2))
    again = activations(body, images, tmp_path, MANY)
    assert again.computed == 2
    assert np.array_equal(first, rows(again))
    err = capfd.readouterr().err
    assert "2 rows of" in err, err


def test_only_views_that_are_not_kept_are_computed(body: Body, images: list[LabelledImage], tmp_path: Path) -> None:
    activations(body, images[:2], tmp_path / "used", FEW)
    activations(body, images[:1], tmp_path / "used", FEW, views=3)
    found = activations(body, images, tmp_path / "used", FEW, views=5)
    assert found.computed == 4
    assert found.computed_views == 2 + 4 + 5 + 5
    fresh = activations(body, images, tmp_path / "fresh", FEW, views=5)
    assert fresh.computed_views == 4 * 5
    np.testing.assert_allclose(rows(found), rows(fresh), rtol=1e-5, atol=1e-6)  # torch's batches differ
    assert len({row.tobytes() for row in rows(found)}) == 4 * 5
