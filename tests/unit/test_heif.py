"""AVIF and HEIC: pixels, orientation, transparency, sizes before decoding, hostile files."""

import io
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serving.image.decode import ImageError, Limits, Reason, decode
from serving.image.heif import heif_size
from tests.support.images import encoded, heic, sample_image

IMAGE = sample_image()
AVIF, HEIC = encoded(IMAGE, "AVIF", quality=95), heic(IMAGE)
FILES = {"AVIF": AVIF, "HEIC": HEIC}


def mean_difference(pixels: np.ndarray, image: Image.Image) -> float:
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == expected.shape
    return float(np.abs(pixels - expected).mean())


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_the_image(name: str) -> None:
    assert mean_difference(decode(FILES[name]), IMAGE) < 4


@pytest.mark.parametrize("name", FILES)
def test_the_size_is_known_before_decoding(name: str) -> None:
    assert heif_size(FILES[name], av1=name == "AVIF") == IMAGE.size
    with pytest.raises(ImageError, match="150 x 110 = 16,500 pixels; at most 16,000"):
        decode(FILES[name], limits=Limits(max_pixels=16_000))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FILES)
def test_images_are_upright(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write = heic if name == "HEIC" else lambda image, **options: encoded(image, "AVIF", quality=95, **options)
    stored = write(IMAGE, exif=exif.tobytes())
    turned = IMAGE.copy()
    turned.getexif()[0x0112] = orientation
    assert mean_difference(decode(stored), ImageOps.exif_transpose(turned)) < 4


@pytest.mark.parametrize("name", FILES)
def test_transparency_is_composited_on_white(name: str) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 32, 64))
    pixels = decode(heic(clear) if name == "HEIC" else encoded(clear, "AVIF", quality=95))
    assert np.abs(pixels[:, 40:].astype(int) - 255).max() < 12
    assert np.abs(pixels[:, :24].astype(int) - (0, 0, 255)).max() < 12


@pytest.mark.parametrize("name", FILES)
def test_data_behind_the_image_is_ignored(name: str) -> None:
    np.testing.assert_array_equal(decode(FILES[name] + b"video" * 1000), decode(FILES[name]))


def test_ten_bits_a_channel_become_eight() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    values = (np.asarray(IMAGE).astype(np.uint16) << 8).tobytes()
    stream = io.BytesIO()
    pillow_heif.from_bytes(mode="RGB;16", size=IMAGE.size, data=values).save(stream, quality=95)
    assert mean_difference(decode(stream.getvalue()), IMAGE) < 4


def claims(data: bytes, width: int, height: int) -> bytes:
    """The same file with other sizes in its boxes; its coded image stays as large as it is."""
    assert struct.pack(">II", *IMAGE.size) in data
    return data.replace(struct.pack(">II", *IMAGE.size), struct.pack(">II", width, height))


def test_an_avif_is_as_large_as_its_coded_image_whatever_its_boxes_say() -> None:
    small = claims(AVIF, 16, 16)
    assert heif_size(small, av1=True) == IMAGE.size
    with pytest.raises(ImageError) as caught:
        decode(small, limits=Limits(max_pixels=16_000))
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_heic_that_is_larger_than_its_boxes_say_is_rejected() -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(ImageError):
        decode(claims(HEIC, 16, 16))


@pytest.mark.parametrize("name", FILES)
def test_every_beginning_of_a_file_is_rejected_with_a_reason(name: str) -> None:
    data = FILES[name]
    for end in range(0, len(data) - 1, max(1, len(data) // 60)):
        with pytest.raises(ImageError):
            decode(data[:end])


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damaged_files_raise_nothing_else(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(content), 600) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(content), limits=Limits(max_pixels=1_000_000))
    except (ImageError, MemoryError):
        return
    assert pixels.shape[2] == 3


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def test_files_with_very_many_boxes_or_items_are_rejected_quickly() -> None:
    head = box(b"ftyp", b"avif" + bytes(4) + b"mif1")
    boxes = box(b"meta", bytes(4) + box(b"free", b"") * 20_000)
    items = box(b"meta", bytes(4) + box(b"iloc", bytes(4) + b"\x44\x00" + struct.pack(">H", 60_000)))
    for content, message in ((boxes, "more than 10,000 boxes"), (items, "60,000 items")):
        with pytest.raises(ImageError, match=message) as caught:
            decode(head + content)
        assert caught.value.reason == Reason.UNSUPPORTED


def located(*extents_of_items: list[tuple[int, int]]) -> bytes:
    """The iloc box of items with extents of (offset, length)."""
    body = bytes(4) + b"\x44\x00" + struct.pack(">H", len(extents_of_items))
    for number, extents in enumerate(extents_of_items):
        body += struct.pack(">HHH", number, 0, len(extents)) + b"".join(struct.pack(">II", *each) for each in extents)
    return box(b"iloc", body)


def avif_with(*boxes: bytes, content: bytes = b"") -> bytes:
    size = box(b"ispe", bytes(4) + struct.pack(">II", 8, 8))
    head = box(b"ftyp", b"avif" + bytes(4) + b"mif1")
    return head + box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", size)) + b"".join(boxes)) + content


HEAD = len(avif_with(located([(0, 0)])))
"""Where the content begins, behind the boxes of a file with one item."""


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = box(b"iprp", inner)
    return inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (avif_with(located(*[[(0, 2**20)]] * 2000), content=b"\x12\x00" * 2**19), "items of the file overlap"),
        (avif_with(located(*[[(2**31, 1)] * 60_000] * 2)), "more than 10,000 extents"),
        (avif_with(located([(HEAD, 2**17)]), content=b"\x12\x00" * 2**16), "more than 10,000 AV1 units"),
        (avif_with(nested(5000)), "damaged"),
    ],
    ids=["overlapping items", "extents", "units", "nested boxes"],
)
def test_files_that_would_take_long_to_walk_are_rejected(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_an_item_that_ends_early_hides_no_larger_one() -> None:
    header = AVIF.index(b"\x0a", AVIF.index(b"av1C") + 8)  # an OBU with a sequence header and its size
    units = AVIF[header : header + 2 + AVIF[header + 1]]
    head = len(avif_with(located([(0, 2)], [(0, len(units))])))
    data = avif_with(located([(head, 2)], [(head + 2, len(units))]), content=b"\x12\xff" + units)
    assert heif_size(data, av1=True) == IMAGE.size


def test_animations_are_named() -> None:
    animated = encoded(IMAGE, "AVIF", save_all=True, append_images=[IMAGE.rotate(90)])
    with pytest.raises(ImageError, match="an animated AVIF is not supported"):
        decode(animated)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC needs pillow-heif .*pip install 'pawserve\[heif\]'") as caught:
        decode(HEIC)
    assert caught.value.reason == Reason.UNSUPPORTED
