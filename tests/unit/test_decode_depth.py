"""Values of more than 8 bits become 8 bits as their file declares them."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.image.decode import decode
from serving.image.orientation import upright_rgb
from tests.support.images import encoded, grey12_tiff, grey16_png, png16


def ramp(bits: int) -> NDArray[np.uint16]:
    """Values of so many bits, the least and the largest included; uint16 `[32, 32]`."""
    return np.linspace(0, (1 << bits) - 1, 1024).astype(np.uint16).reshape(32, 32)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_of_fewer_bits_than_16_keep_the_brightness_that_the_file_declares(bits: int) -> None:
    values = ramp(bits)
    expected = np.stack([values >> bits - 8] * 3, 2)
    assert expected.max() == 255
    np.testing.assert_array_equal(decode(grey16_png(values, bits)), expected)
    tiff = encoded(Image.fromarray(values), "TIFF", tiffinfo={281: (1 << bits) - 1})  # MaxSampleValue
    np.testing.assert_array_equal(decode(tiff), expected)


def test_a_tiff_of_12_bits_is_as_bright_as_it_says() -> None:
    values = ramp(12) & 0xFF0  # as if they filled 16 bits
    np.testing.assert_array_equal(decode(grey12_tiff(values)), np.stack([values >> 4] * 3, 2))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("scaling", ["shifted", "repeated", "rounded"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_png_whose_values_fill_16_bits_stays_as_it_was(bits: int, scaling: str, dark: bool) -> None:
    """As PNG prescribes for fewer significant bits; a dark image is not made brighter."""
    values = np.arange(1 << (2 * bits - 16 if dark else bits), dtype=np.uint32)[None]
    if scaling == "rounded":
        filled = np.round(values * 65535 / ((1 << bits) - 1))
    else:
        filled = values << 16 - bits | (values >> 2 * bits - 16 if scaling == "repeated" else 0)
    assert (filled.max() < 1 << bits) == dark
    pixels = decode(grey16_png(filled.astype(np.uint16), bits))
    np.testing.assert_array_equal(pixels[..., 0], filled.astype(np.uint16) >> 8)


def test_values_of_16_bits_keep_their_high_byte_whatever_a_file_declares() -> None:
    values = ramp(12)
    high_byte = np.stack([values >> 8] * 3, 2)
    np.testing.assert_array_equal(decode(grey16_png(values)), high_byte)
    np.testing.assert_array_equal(decode(grey16_png(values, 10)), high_byte)  # larger than declared
    for highest in (None, 1023, 3999, 0):  # none, too few, the largest value that occurs, nonsense
        options = {} if highest is None else {"tiffinfo": {281: highest}}
        np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF", **options)), high_byte)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_colour_pngs_of_fewer_bits_than_16_are_as_bright_as_they_declare(bits: int) -> None:
    colours = np.stack([ramp(bits), ramp(bits)[::-1], ramp(bits) // 2], 2)
    np.testing.assert_array_equal(decode(png16(colours, bits)), colours >> bits - 8)
    np.testing.assert_array_equal(decode(png16(colours)), colours >> 8)
    for opaque in ((1 << bits) - 1, 65535):  # alpha is stored like the colours, or fills 16 bits
        alpha = np.full((32, 32, 1), opaque, np.uint16)
        np.testing.assert_array_equal(decode(png16(np.dstack([colours, alpha]), bits)), colours >> bits - 8)
        grey = np.dstack([ramp(bits), alpha])
        np.testing.assert_array_equal(decode(png16(grey, bits)), np.dstack([ramp(bits)] * 3) >> bits - 8)


def test_colour_pngs_are_the_same_in_bands_of_any_height() -> None:
    colours = np.stack([ramp(12), ramp(12)[::-1], ramp(12) // 2], 2)
    data = png16(colours, 12)
    for band_pixels in (1, 96, 10_000):
        with Image.open(io.BytesIO(data)) as image:
            pixels = upright_rgb(
                image, png_bits=12, reopen=lambda: Image.open(io.BytesIO(data)), band_pixels=band_pixels
            )
        np.testing.assert_array_equal(pixels, colours >> 4)


def test_colour_pngs_whose_values_fill_16_bits_stay_as_they_were() -> None:
    filled = np.stack([ramp(12) << 4, ramp(12)[::-1] << 4, ramp(12) // 2 << 4], 2)
    np.testing.assert_array_equal(decode(png16(filled, 12)), filled >> 8)
    np.testing.assert_array_equal(decode(png16(filled >> 4, 10)), filled >> 12)  # larger than declared
