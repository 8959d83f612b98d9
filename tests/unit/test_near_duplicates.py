"""Near duplicates: copies are found, different images are not."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.image.decode import OWN_IMAGE_LIMITS
from tests.support.images import encoded
from training.checks.alignment import copies
from training.checks.duplicates import find_duplicates, nearest
from training.checks.image_facts import blur_effect, image_facts, measure_image
from training.data.images import LabelledImage
from training.samples.drawing import draw


def silent(done: int, total: int) -> None:
    """Progress that nobody reads."""


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width * 4 // 100, height * 6 // 100, width * 95 // 100, height))


COPIES: dict[str, Callable[[Image.Image], tuple[Image.Image, dict[str, int]]]] = {
    "resized": lambda image: (image.resize((image.width // 2, image.height // 2)), {}),
    "recompressed": lambda image: (image, {"quality": 30}),
    "mirrored": lambda image: (ImageOps.mirror(image), {}),
    "cropped": lambda image: (crop(image), {}),
    "mirrored, cropped and smaller": lambda image: (ImageOps.mirror(crop(image)).resize((150, 140)), {"quality": 60}),
}


def written(folder: Path, images: dict[str, tuple[Image.Image, dict[str, int]]]) -> list[LabelledImage]:
    found = []
    for name, (image, options) in images.items():
        path = folder / f"{name}.jpg"
        image.save(path, "JPEG", **options)
        found.append(LabelledImage(path, 0, hashlib.sha256(path.read_bytes()).digest()))
    return found


@cache
def drawn(count: int) -> dict[str, tuple[Image.Image, dict[str, int]]]:
    kinds = ("cat", "dog")
    return {f"{at}": (draw(kinds[at % 2], np.random.default_rng([9, at])), {"quality": 90}) for at in range(count)}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_grouped_with_their_originals_and_nothing_else_is(change: str, tmp_path: Path) -> None:
    originals = drawn(20)
    changed = {f"{name} copy": COPIES[change](image) for name, (image, _) in list(originals.items())[:10]}
    images = written(tmp_path, originals | changed)
    facts = image_facts(images, tmp_path / "cache", silent)
    assert (facts["width"] > 0).all()
    # stands for the activations of a network: a copy is among the nearest, and so are others
    rng = np.random.default_rng(0)
    places = rng.normal(size=(20, 8))
    rows = np.concatenate([places, places[:10] + 0.3 * rng.normal(size=(10, 8))]).astype(np.float16)

    groups = find_duplicates(images, rows, facts["thumbnail"], silent)

    found = [group.members for group in groups]
    assert [members for members in found if members[1] - members[0] != 20 or len(members) != 2] == []
    assert len(found) >= 9


def test_identical_files_are_one_group_however_many_there_are(tmp_path: Path) -> None:
    image = next(iter(drawn(1).values()))
    images = written(tmp_path, {f"{at}": image for at in range(9)} | {"other": next(iter(drawn(2).items()))[1]})
    others = written(tmp_path, {"different": list(drawn(2).values())[1]})
    images = images[:9] + others
    facts = image_facts(images, tmp_path / "cache", silent)
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float16)
    (group,) = find_duplicates(images, rows, facts["thumbnail"], silent)
    assert group.members == list(range(9))
    assert group.similarity == 1


def test_uniform_images_are_copies_of_nothing() -> None:
    thumbnails = np.stack([np.full((32, 32), 40, np.uint8), np.full((32, 32), 200, np.uint8)])
    assert copies(thumbnails, np.array([[0, 1]])).tolist() == [0]


def test_the_nearest_are_those_of_the_whole_matrix_of_cosines() -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 12)).astype(np.float16)
    unit = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    found = nearest(rows, 5, silent)
    expected = np.sort(cosines, 1)[:, -5:]
    np.testing.assert_allclose(np.sort(np.take_along_axis(cosines, found, 1), 1), expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_problem(count: int, tmp_path: Path) -> None:
    images = written(tmp_path, drawn(count))
    facts = image_facts(images, tmp_path / "cache", silent)
    assert find_duplicates(images, np.zeros((count, 4), np.float16), facts["thumbnail"], silent) == []


def test_facts_of_an_image_are_those_of_its_pixels_and_are_kept_by_content(tmp_path: Path) -> None:
    turned = Image.new("L", (90, 30), 250)
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.png", exif=exif)
    images = [
        LabelledImage(tmp_path / "turned.png", 0, hashlib.sha256((tmp_path / "turned.png").read_bytes()).digest())
    ]
    facts = image_facts(images, tmp_path / "cache", silent)
    (row,) = facts
    assert (row["width"], row["height"]) == (30, 90)
    assert row["mean"] == row["dark"] == row["bright"] == 250
    decoded = []
    again = image_facts(images, tmp_path / "cache", lambda done, total: decoded.append(done))
    assert np.array_equal(again, facts)
    assert decoded == []


def test_a_file_that_cannot_be_decoded_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")
    image = LabelledImage(tmp_path / "text.jpg", 0, hashlib.sha256(b"text").digest())
    assert image_facts([image], tmp_path, silent)["width"].tolist() == [0]


def test_a_blurred_image_has_a_higher_blur_effect() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8)
    soft = np.asarray(Image.fromarray(noise).resize((30, 20)).resize((300, 200), Image.Resampling.BICUBIC))
    assert blur_effect(noise) < 0.2
    assert blur_effect(soft) > 0.6
    assert blur_effect(noise[:, :3]) >= 0  # too small to measure


def test_every_kind_of_image_has_facts() -> None:
    for mode, form in (("RGB", "JPEG"), ("L", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("1", "BMP")):
        row = measure_image(encoded(Image.new(mode, (50, 40)), form), OWN_IMAGE_LIMITS)
        assert (row["width"], row["height"]) == (50, 40)
        assert row["format"] > 0
        assert row["mode"] > 0
