"""The fast path for plain JPEGs sees what Pillow sees, and leaves to Pillow what is not plain."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.image.decode import ImageError, Limits, Reason, decode
from serving.image.headers import plain_size
from serving.image.orientation import EXIF_ORIENTATION
from tests.support.images import encoded, sample_image

PICTURE = sample_image()
PLAIN = encoded(PICTURE, "JPEG", quality=90)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 0}, {"comment": b"\xff\xe1\xff\xda"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_file_has_pillow_s_size_and_pixels(mode: str, options: dict[str, object]) -> None:
    data = encoded(PICTURE.convert(mode), "JPEG", quality=90, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert plain_size(data) == image.size
        np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return encoded(PICTURE, "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        PLAIN[:100],
        with_exif(),
        encoded(PICTURE, "JPEG", xmp=b"<x:xmpmeta/>"),
        encoded(PICTURE, "JPEG", progressive=True),
        encoded(PICTURE.convert("CMYK"), "JPEG"),
        encoded(PICTURE, "PNG"),
    ],
    ids=["nothing", "a start", "cut off", "EXIF", "XMP", "progressive", "CMYK", "PNG"],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes) -> None:
    assert plain_size(data) is None


def test_a_plain_file_beyond_the_limit_is_refused_from_its_header() -> None:
    with pytest.raises(ImageError) as caught:
        decode(PLAIN, limits=Limits(max_pixels=100))
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_plain_file_that_ends_early_is_told_from_a_whole_one() -> None:
    with pytest.raises(ImageError) as caught:
        decode(PLAIN[: len(PLAIN) // 2])
    assert caught.value.reason is Reason.TRUNCATED


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 700), st.binary(min_size=1, max_size=4))
def test_damaged_headers_give_a_picture_or_an_image_error(at: int, damage: bytes) -> None:
    data = PLAIN[:at] + damage + PLAIN[at + len(damage) :]
    try:
        pixels = decode(data, limits=Limits(max_pixels=10_000_000))
    except ImageError:
        return
    assert pixels.ndim == 3


@pytest.mark.photos
def test_real_photos_have_the_size_that_pillow_reads(photos: Path) -> None:
    def sizes() -> Iterator[tuple[tuple[int, int] | None, tuple[int, int]]]:
        for path in sorted(photos.rglob("*.jpg"))[::20]:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                yield plain_size(data), image.size

    found = [(ours, theirs) for ours, theirs in sizes() if ours]
    assert found
    assert all(ours == theirs for ours, theirs in found)
