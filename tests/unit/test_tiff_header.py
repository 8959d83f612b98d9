"""Tiles of a TIFF: real files are decoded, and files whose tiles would exhaust the memory are rejected."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from serving.image.decode import ImageError, Reason, decode
from serving.image.headers import tiling
from tests.support.images import encoded, sample_image

LZW, PACK_BITS = 5, 32_773


def tiled(tiles: list[tuple[int, int]], compression: int = LZW, data: bytes = b"\x80\x0b\x00" * 50) -> bytes:
    """A grey image of 100 by 100 pixels with a pair of tile size tags for each given size."""
    tags = [(256, 100), (257, 100), (258, 8), (259, compression), (262, 1), (277, 1)]
    for width, length in tiles:
        tags += [(322, width), (323, length)]
    end = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(324, end), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("tiles", [[(32_000, 32_000)], [(32_000, 32_000), (64, 64)], [(64, 64), (32_000, 32_000)]])
def test_huge_tiles_are_rejected_before_decoding(tiles: list[tuple[int, int]]) -> None:
    with pytest.raises(ImageError) as caught:
        decode(tiled(tiles))
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "tiles of 1,024,000,000 pixels" in str(caught.value)


def test_a_tiled_image_is_decoded() -> None:
    pixels = np.arange(128 * 128, dtype=np.uint8).reshape(128, 128)
    data = tiled([(128, 128)], 1, pixels.tobytes())
    assert tiling(data) == (128 * 128, 1)
    np.testing.assert_array_equal(decode(data)[..., 0], pixels[:100, :100])


@pytest.mark.parametrize("big", [False, True])
def test_files_without_tiles_have_none(big: bool) -> None:
    file = io.BytesIO()
    sample_image().save(file, "TIFF", big_tiff=big)
    assert tiling(file.getvalue())[0] == 0
    assert decode(file.getvalue()).shape == np.asarray(sample_image()).shape
    with Image.open(io.BytesIO(encoded(sample_image(), "TIFF"))) as image:
        assert image.format == "TIFF"


@pytest.mark.parametrize("at", [100, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_directory_behind_the_end_is_reported(at: int) -> None:
    with pytest.raises(ImageError):
        decode(b"II+\0" + struct.pack("<HHQ", 8, 0, at) + bytes(20))
