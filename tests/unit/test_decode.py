"""Any bytes become upright RGB, or an ImageError with a reason; nothing else."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serving.image.decode import MAX_RLE, ImageError, Limits, Reason, decode
from serving.image.headers import count_scans
from tests.support.images import encoded, png_header, sample_image

IMAGE = sample_image()
PIXELS = np.asarray(IMAGE)
EXIF_ORIENTATION = 0x0112
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "BMP": {}}


def rejection(data: bytes, **limits: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, limits=Limits(**limits))
    return caught.value


@pytest.mark.parametrize(("format_", "options"), LOSSLESS.items())
def test_lossless_formats_keep_every_pixel(format_: str, options: dict[str, bool]) -> None:
    np.testing.assert_array_equal(decode(encoded(IMAGE, format_, **options)), PIXELS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg_decodes_as_pillow_decodes_it(options: dict[str, object]) -> None:
    data = encoded(IMAGE, "JPEG", quality=92, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_scaled_decode_is_smaller_but_not_below_the_requested_side() -> None:
    data = encoded(IMAGE.resize((1500, 1100)), "JPEG", quality=95)
    full = decode(data)
    for side in (1, 100, 256, 500, 1100, 3000):
        pixels = decode(data, min_side=side)
        assert min(pixels.shape[:2]) >= min(side, 1100)
    narrow = encoded(IMAGE.resize((200, 3000)), "JPEG")
    assert decode(narrow, min_side=256).shape == (3000, 200, 3)
    small = decode(data, min_side=256)
    assert small.shape[0] < full.shape[0] / 2
    again = np.asarray(Image.fromarray(full).resize(small.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(small.astype(int) - again).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_in_every_format(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"quality": 95} if format_ == "JPEG" else LOSSLESS[format_]
    data = encoded(IMAGE, format_, exif=exif, **options)
    plain = Image.open(io.BytesIO(encoded(IMAGE, format_, **options))).convert("RGB")
    turned = plain.copy()
    turned.getexif()[EXIF_ORIENTATION] = orientation
    np.testing.assert_array_equal(decode(data), np.asarray(ImageOps.exif_transpose(turned)))


def test_an_image_with_damaged_exif_is_decoded() -> None:
    data = encoded(IMAGE, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(data).shape == PIXELS.shape


GREY = IMAGE.convert("L")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(GREY, "PNG"), GREY.convert("RGB")),
        (encoded(GREY, "JPEG", quality=100), None),
        (encoded(IMAGE.convert("1"), "PNG"), IMAGE.convert("1").convert("RGB")),
        (encoded(IMAGE.quantize(16), "PNG"), IMAGE.quantize(16).convert("RGB")),
        (encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"), GREY.convert("RGB")),
        (encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "TIFF"), GREY.convert("RGB")),
    ],
    ids=["grey PNG", "grey JPEG", "1-bit", "palette", "16-bit PNG", "16-bit TIFF"],
)
def test_every_kind_of_pixel_becomes_rgb(data: bytes, expected: Image.Image | None) -> None:
    pixels = decode(data)
    assert pixels.shape == PIXELS.shape
    if expected is None:
        assert np.abs(pixels.astype(int) - np.asarray(GREY)[..., None]).max() <= 3
    else:
        np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), (10, 20, 30, 0) if mode == "RGBA" else (10, 0))
    image.putpixel((0, 0), (10, 20, 30, 255) if mode == "RGBA" else (10, 255))
    pixels = decode(encoded(image, "PNG"))
    assert pixels[0, 0].tolist() == ([10, 20, 30] if mode == "RGBA" else [10, 10, 10])
    assert pixels[1:].min() == 255


def test_a_transparent_palette_colour_is_white() -> None:
    image = IMAGE.quantize(16)
    pixels = decode(encoded(image, "PNG", transparency=3))
    hidden = np.asarray(image) == 3
    assert hidden.any()
    assert (pixels[hidden] == 255).all()
    np.testing.assert_array_equal(pixels[~hidden], np.asarray(image.convert("RGB"))[~hidden])


def test_cmyk_jpeg_has_about_the_colours_of_the_image() -> None:
    pixels = decode(encoded(IMAGE.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 6


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_decoded(format_: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert decode(data)[10, 10].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_a_multi_picture_jpeg_of_a_phone_is_decoded() -> None:
    data = encoded(IMAGE, "MPO", save_all=True, append_images=[IMAGE], quality=95)
    assert np.abs(decode(data, min_side=50).astype(int).mean() - PIXELS.mean()) < 3


def test_pixels_without_an_agreed_white_are_unsupported() -> None:
    for mode in ("F", "I"):
        assert rejection(encoded(IMAGE.convert(mode), "TIFF")).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<html>", b"%!PS", b"\0" * 5000, bytes(range(256))],
    ids=["empty", "text", "html", "postscript", "zeros", "bytes"],
)
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    assert rejection(data).reason == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_rejected_wherever_it_ends(format_: str) -> None:
    data = encoded(IMAGE, format_)
    for share in (0.05, 0.2, 0.5, 0.8, 0.95):
        error = rejection(data[: int(len(data) * share)])
        assert error.reason in (Reason.TRUNCATED, Reason.NOT_AN_IMAGE)


def test_a_huge_image_is_rejected_before_pixels_are_decoded() -> None:
    tracemalloc.start()
    error = rejection(png_header(60_000, 60_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == Reason.TOO_LARGE
    assert "60000 x 60000 = 3,600,000,000 pixels" in str(error)
    assert peak < 2**20


def test_the_limits_are_exact() -> None:
    data = encoded(IMAGE, "PNG")
    pixels = IMAGE.width * IMAGE.height
    decode(data, limits=Limits(max_bytes=len(data), max_pixels=pixels))
    assert rejection(data, max_bytes=len(data) - 1).reason == Reason.TOO_LARGE
    assert rejection(data, max_pixels=pixels - 1).reason == Reason.TOO_LARGE
    with pytest.raises(ValueError, match="max_pixels is 0"):
        Limits(max_pixels=0)


def compressed_bmp(width: int, height: int, runs: bytes) -> bytes:
    """A BMP with 8 bits a pixel, run-length encoded, and a grey palette."""
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))
    begin = 14 + 40 + len(palette)
    header = struct.pack("<2sIHHI", b"BM", begin + len(runs), 0, 0, begin)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0) + palette + runs


def test_a_compressed_bmp_is_decoded_unless_it_is_large() -> None:
    """Pillow decodes these in Python: 28 kB that claim to be 49 million pixels would take it several seconds."""
    pixels = decode(compressed_bmp(3, 2, b"\x03\x05\0\0" * 2))
    assert pixels.shape == (2, 3, 3)
    assert (pixels == 5).all()
    for data in (compressed_bmp(7000, 7000, b"\x01\x05\0\0" * 7000), compressed_bmp(9, 9, bytes(MAX_RLE))):
        error = rejection(data)
        assert error.reason is Reason.UNSUPPORTED
        assert "compressed BMP" in str(error)


def test_a_jpeg_with_thousands_of_scans_is_rejected() -> None:
    data = encoded(IMAGE, "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    assert rejection(data[:-2] + data[last_scan:-2] * 2000 + b"\xff\xd9").reason == Reason.UNSUPPORTED


def test_the_number_of_scans_is_limited_by_the_image_size() -> None:
    data = encoded(Image.new("L", (5000, 5000)), "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    assert decode(data, min_side=100).shape == (625, 625, 3)
    error = rejection(data[:-2] + data[last_scan:-2] * 60 + b"\xff\xd9")
    assert error.reason == Reason.UNSUPPORTED
    assert "at this size, at most 40 are allowed" in str(error)


SCAN = b"\xff\xda"
MARKERS = {
    "in a video behind the image": lambda data: data + b"\0\0\0\x18ftypmp42" + SCAN * 3000,
    "in an image behind the image": lambda data: data + (SCAN + b"\xff\xd8\xff\xd9") * 3000,
    "in a comment": lambda data: data[:2] + b"\xff\xfe\x17\x72" + SCAN * 3000 + data[2:],
    "in EXIF": lambda data: data[:2] + b"\xff\xe1\x17\x78Exif\0\0" + SCAN * 3000 + data[2:],
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("place", MARKERS)
def test_scan_markers_that_no_decoder_reads_do_not_count_as_scans(place: str, progressive: bool) -> None:
    data = encoded(IMAGE, "JPEG", progressive=progressive, exif=Image.Exif(), xmp=b"<x:xmpmeta/>")
    np.testing.assert_array_equal(decode(MARKERS[place](data)), decode(data))


def test_scans_are_counted_up_to_the_end_of_the_image() -> None:
    data = encoded(IMAGE, "JPEG", progressive=True)
    assert count_scans(data) == count_scans(data + data) == 10  # of libjpeg's script for three components
    last = data[data.rindex(SCAN) : -2]
    assert count_scans(data[:-2] + b"\xff" + last + b"\xff\xd0" + last + b"junk" + last) == 13


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("appended", [bytes(200_000), bytes(range(256)) * 800, SCAN * 100_000], ids=["0", "any", "SOS"])
def test_data_behind_an_image_does_not_matter(format_: str, appended: bytes) -> None:
    data = encoded(IMAGE, format_, exif=Image.Exif(), **LOSSLESS.get(format_, {}))
    np.testing.assert_array_equal(decode(data + appended), decode(data))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_extreme_shapes_are_decoded(size: tuple[int, int], format_: str) -> None:
    pixels = decode(encoded(Image.new("RGB", size, (200, 30, 30)), format_), min_side=256)
    assert pixels.shape == (size[1], size[0], 3)


MUTABLE = [encoded(IMAGE.resize((48, 36)), name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]


@settings(max_examples=200)
@given(st.sampled_from(MUTABLE), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12), st.data())
def test_damaged_images_raise_image_errors_only(
    data: bytes, changes: list[tuple[float, int]], more: st.DataObject
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    length = more.draw(st.integers(0, len(damaged)))
    for content in (bytes(damaged), bytes(damaged[:length])):
        try:
            pixels = decode(content, min_side=16)
        except ImageError:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM", b"RIFF\0\0\0\0WEBP"])
)
def test_random_bytes_raise_image_errors_only(noise: bytes, magic: bytes) -> None:
    with pytest.raises(ImageError):
        decode(magic + noise)
