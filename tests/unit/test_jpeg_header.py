"""The fast path for plain JPEGs reads the same as Pillow, and leaves other files to Pillow."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.image.decode import ImageError, Limits, Reason, decode
from serving.image.headers import plain_size
from serving.image.orientation import EXIF_ORIENTATION
from tests.support.images import encoded, sample_image

IMAGE = sample_image()
PLAIN = encoded(IMAGE, "JPEG", quality=90)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 0}, {"comment": b"\xff\xe1\xff\xda"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_file_has_the_size_and_pixels_that_pillow_reads(mode: str, options: dict[str, object]) -> None:
    data = encoded(IMAGE.convert(mode), "JPEG", quality=90, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert plain_size(data) == image.size
        np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return encoded(IMAGE, "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        PLAIN[:100],
        with_exif(),
        encoded(IMAGE, "JPEG", xmp=b"<x:xmpmeta/>"),
        encoded(IMAGE, "JPEG", progressive=True),
        encoded(IMAGE.convert("CMYK"), "JPEG"),
        encoded(IMAGE, "PNG"),
    ],
    ids=["nothing", "a start", "cut off", "EXIF", "XMP", "progressive", "CMYK", "PNG"],
)
def test_other_files_are_left_to_pillow(data: bytes) -> None:
    assert plain_size(data) is None


def test_a_plain_file_beyond_the_limit_is_rejected_by_its_header() -> None:
    with pytest.raises(ImageError) as caught:
        decode(PLAIN, limits=Limits(max_pixels=100))
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_plain_file_that_ends_early_is_reported_as_truncated() -> None:
    with pytest.raises(ImageError) as caught:
        decode(PLAIN[: len(PLAIN) // 2])
    assert caught.value.reason is Reason.TRUNCATED


@given(st.integers(0, 700), st.binary(min_size=1, max_size=4))
def test_damaged_headers_give_an_image_or_an_image_error(at: int, damage: bytes) -> None:
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
