"""Bytes that are no supported image: the error names what they look like, and what to do."""

import base64
import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.errors import ApiError
from serving.api.open_inference.inputs import parse_images
from serving.image.decode import ImageError, Reason, decode
from serving.image.kinds import explain, supported_format, unsupported_format
from serving.models.image_data import ImageData
from serving.pb.inference import open_inference_pb2 as pb
from tests.support.images import encoded, sample_image

IMAGE = sample_image()
JPEG, PNG, WEBP, TIFF = (encoded(IMAGE, name) for name in ("JPEG", "PNG", "WEBP", "TIFF"))
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4) + body + bytes(50)


def rejection(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *((ftyp(brand), "a HEIF image sequence") for brand in (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")),
        (ftyp(b"avis", b"avif"), "an animated AVIF"),
        (ftyp(b"mif1", b"jxsi"), "JPEG XS in HEIF"),
        (ftyp(b"crx "), "raw (Canon)"),
        (ftyp(b"isom", b"mp42"), "MP4 or QuickTime video"),
        (b"\xff\x0a\xfa\x7f\x01\x90", "JPEG XL (codestream)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x4f\xff\x51\x00\x2f", "JPEG 2000 (codestream)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (SVG, "SVG"),
        (b"\xef\xbb\xbf \n" + SVG, "SVG"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n" + SVG, "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE svg>" + SVG, "SVG"),
        ("\ufeff<?xml version='1.0'?>".encode("utf-16-le") + SVG.decode().encode("utf-16-le"), "SVG"),
        (b"8BPS\0\1", "Photoshop"),
        (bytes(128) + b"DICM", "DICOM"),
    ],
)
def test_formats_that_are_not_supported_are_named(data: bytes, name: str) -> None:
    error = rejection(data)
    assert error.reason == Reason.UNSUPPORTED
    assert str(error) == f"{name} is not supported; supported are JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *((ftyp(brand), "HEIC") for brand in (b"heic", b"heix", b"heim", b"heis")),
        (ftyp(b"mif1", b"mif1", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"miaf", b"avif"), "AVIF"),
        (ftyp(b"mif1"), "HEIF"),
    ],
)
def test_brands_of_supported_formats_are_known(data: bytes, name: str) -> None:
    assert (supported_format(data), unsupported_format(data)) == (name, "")
    assert str(rejection(data)) == f"begins as {name}, but its header ends early or is damaged"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (base64.b64encode(JPEG), "base64 text of a file in the format JPEG: decode it and send the bytes"),
        (base64.encodebytes(PNG), "base64 text of a file in the format PNG"),
        (base64.urlsafe_b64encode(WEBP), "base64 text of a file in the format WEBP"),
        (json.dumps(base64.b64encode(TIFF).decode()).encode(), "base64 text of a file in the format TIFF"),
        (base64.b64encode(ftyp(b"heic")), "base64 text of a file in the format HEIC"),
        (JPEG.hex().encode(), "hexadecimal text of a file in the format JPEG"),
        (b"data:image/jpeg;base64," + base64.b64encode(JPEG), "a data URI: send what the part behind its comma"),
        (gzip.compress(JPEG), "a file compressed by gzip: decompress it"),
        (b"PK\3\4" + bytes(40), "a file compressed by zip"),
        (b"\r\n<!DOCTYPE html>\n<html><body>Sign in", "HTML, such as the page of a login or an error"),
        (b"<html>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML, such as the error of an object store"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "Git LFS: run `git lfs pull`"),
        (b"https://example.org/cat.jpg", "an address: send the image's bytes"),
        (repr(JPEG).encode(), "bytes written as Python text"),
        (b'{"image": "', "JSON: send the image's bytes alone"),
        (JPEG.decode("utf-8", "replace").encode(), "read or sent as text: read and send it as binary data"),
        (PNG.decode("utf-8", "replace").encode(), "read or sent as text"),
        (JPEG.decode("latin-1").encode(), "read or sent as text"),
        (PNG.replace(b"\r\n", b"\n"), "read or sent as text"),
        (len(JPEG).to_bytes(4, "little") + JPEG, "a length of four bytes and a file in the format JPEG"),
        (b"\r\n" + PNG, "a file in the format PNG after 2 other bytes: send the file alone"),
        (bytes(5000), "nothing was written: its first bytes are all 0"),
    ],
)
def test_other_bytes_are_described(data: bytes, expected: str) -> None:
    error = rejection(data)
    assert error.reason == Reason.NOT_AN_IMAGE
    assert f"the {len(data):,} bytes are not an image; they look like " in str(error)
    assert expected in str(error)


@pytest.mark.parametrize("data", [b"hello", b"[\x01\xff\xfe", bytes(range(256)), b"A" * 64, b"ab12" * 16])
def test_bytes_that_look_like_nothing_known_get_the_supported_formats(data: bytes) -> None:
    assert (
        str(rejection(data))
        == f"the {len(data):,} bytes are not an image; supported are JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC"
    )


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_can_be_described(data: bytes) -> None:
    assert all(isinstance(each(data), str) for each in (explain, supported_format, unsupported_format))


def parse(name: str, datatype: str, shape: list[int], raw: bytes) -> list[ImageData]:
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    return parse_images(pb.ModelInferRequest(inputs=[tensor]), [raw], 10**6)


@pytest.mark.parametrize(("data", "name"), [(JPEG, "JPEG"), (PNG, "PNG"), (WEBP, "WEBP")])
def test_a_file_in_place_of_a_tensor_of_the_open_inference_protocol_is_named(data: bytes, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse("images", "BYTES", [1], data)
    assert f"has a file in the format {name} in place of the length of element 0" in caught.value.message
    assert "send its length in four bytes, little endian" in caught.value.message
    first = len(PNG).to_bytes(4, "little") + PNG
    with pytest.raises(ApiError, match="in place of the length of element 1"):
        parse("images", "BYTES", [2], first + data)
    with pytest.raises(ApiError, match=f"It begins as a file in the format {name}: send that as images"):
        parse("pixels", "UINT8", [1, 110, 150, 3], data)
    assert parse("images", "BYTES", [1], first) == [PNG]
    assert len(parse("pixels", "UINT8", [1, 2, 2, 3], np.zeros(12, np.uint8).tobytes())) == 1
