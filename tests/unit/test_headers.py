"""Files with millions of parts are rejected before they are opened; real files are decoded."""

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from serving.image.decode import ImageError, Limits, PixelBudget, Reason, decode, estimate_work
from serving.image.headers import full_size
from serving.image.preprocess import Preprocess
from tests.support.images import encoded, sample_image
from tests.support.waiting import LIMIT_S

IMAGE = sample_image()
JPEG, GIF = encoded(IMAGE, "JPEG"), encoded(IMAGE, "GIF")
PROGRESSIVE = encoded(IMAGE, "JPEG", progressive=True)
FRAME = GIF.index(b",", 13 + 3 * 256)
MANY = 300_000


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """An image of 10 by 10 pixels with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(310))), (b"IEND", b"")]
    coded = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def tiff(strips: int) -> bytes:
    """A grey image with one strip for each row."""
    tags = [(256, 1, 100), (257, 1, strips), (258, 1, 8), (259, 1, 1), (262, 1, 1), (277, 1, 1), (278, 1, 1)]
    end = 8 + 2 + 12 * 9 + 4
    tags += [(273, strips, end), (279, strips, end + 4 * strips)]
    entries = b"".join(struct.pack("<HHII", tag, 4, *rest) for tag, *rest in sorted(tags))
    offsets = struct.pack(f"<{strips}I", *[end + 8 * strips] * strips) + struct.pack(f"<{strips}I", *[100] * strips)
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + offsets + bytes(100)


HOSTILE = {
    "JPEG, empty segments": b"\xff\xd8" + b"\xff\xe5\x00\x02" * MANY + JPEG[2:],
    "JPEG, EXIF segments": b"\xff\xd8" + b"\xff\xe1\x00\x08Exif\0\0" * MANY + JPEG[2:],
    "JPEG, comments": b"\xff\xd8" + b"\xff\xfe\x00\x03a" * MANY + JPEG[2:],
    "JPEG, fill bytes": b"\xff\xd8" + b"\xff" * MANY + JPEG[2:],
    "JPEG, ends of images": b"\xff\xd8" + b"\xff\xd9" * MANY + JPEG[2:],
    "JPEG, extensions": b"\xff\xd8" + b"\xff\xf0\x7f\x00" + b"a" * 0x7F00 + JPEG[2:],
    "JPEG, segments between scans": PROGRESSIVE[:-2] + b"\xff\xfe\x00\x02" * MANY + PROGRESSIVE[-2:],
    "JPEG, bytes between segments": b"\xff\xd8\xff\xfe\x00\x02" + b"a" * MANY + JPEG[2:],
    "PNG, texts": png(*[(b"tEXt", b"k\0v")] * 20_000),
    "GIF, comments": GIF[:FRAME] + b"!\xfe\x01a\0" * MANY + GIF[FRAME:],
    "GIF, blocks of one comment": GIF[:FRAME] + b"!\xfe" + b"\x01a" * MANY + b"\0" + GIF[FRAME:],
    "TIFF, strips": tiff(MANY),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_with_too_many_parts_is_rejected_before_it_is_opened(kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(HOSTILE[kind])
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "more than 10,000" in str(caught.value) or "at most 50,000" in str(caught.value)


def test_real_files_have_few_parts() -> None:
    large = Image.effect_noise((1500, 1500), 80)
    frames = [Image.new("P", (20, 20), colour) for colour in range(200)]
    for data in (
        encoded(large, "JPEG", icc_profile=bytes(10 * 2**20)),
        encoded(large, "JPEG", restart_marker_blocks=1),
        encoded(large, "JPEG", progressive=True, comment=b"c" * 60_000),
        encoded(large, "PNG", compress_level=0),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 100_000),
        tiff(20_000),
    ):
        assert decode(data).ndim == 3


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "progressive JPEG"])
def test_the_full_size_is_that_of_the_header(format_: str) -> None:
    kind = format_.removeprefix("progressive ")
    data = encoded(IMAGE, kind, **{"progressive": True} if kind != format_ else {})
    assert full_size(data) == IMAGE.size
    for end in range(0, 60):
        assert full_size(data[:end]) == full_size(memoryview(data)[:end])  # and raises nothing
    assert estimate_work(memoryview(data)) == estimate_work(data)


def test_a_large_image_at_full_size_is_more_work_than_a_large_jpeg_and_both_more_than_a_small_one() -> None:
    png = encoded(Image.new("L", (7000, 7000)), "PNG")
    small = encoded(IMAGE, "JPEG")
    large = encoded(Image.new("L", (7000, 7000)), "JPEG")
    assert full_size(large) == (0, 0)
    works = [estimate_work(each) for each in (small, large, png)]
    assert [work.large for work in works] == [False, False, True]
    assert works[0].seconds < works[1].seconds < works[2].seconds / 50
    beyond = png[:16] + bytes([0x7F, 0xFF, 0xFF, 0xFF] * 2) + png[24:]  # is rejected when it is decoded
    assert estimate_work(beyond, Limits(max_pixels=1000)).seconds < 0.01


def test_a_small_image_does_not_wait_for_the_pixels_of_large_ones() -> None:
    budget = PixelBudget()
    with budget.take(1600, 1600), budget.take(100, 1600):
        pass


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_of_pixels_is_resized(size: tuple[int, int]) -> None:
    canvas_SSC = Preprocess().canvas(encoded(Image.new("L", size, 200), "PNG"))
    np.testing.assert_array_equal(canvas_SSC, 200)


def test_images_that_are_decoded_at_the_same_time_stay_within_the_pixel_budget() -> None:
    budget = PixelBudget()
    taken, most = [0], [0]
    lock = threading.Lock()

    def decode_one(pixels: int) -> None:
        with budget.take(pixels, 10):
            with lock:
                taken[0] += pixels
                most[0] = max(most[0], taken[0])
            time.sleep(0.01)
            with lock:
                taken[0] -= pixels

    threads = [threading.Thread(target=decode_one, args=(pixels,)) for pixels in (6, 4, 9, 1, 10, 3, 3, 3, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert taken == [0]
    assert 4 <= most[0] <= 12
    assert decode(encoded(IMAGE, "PNG"), limits=Limits(max_pixels=IMAGE.width * IMAGE.height)).shape == (110, 150, 3)
