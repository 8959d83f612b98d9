"""What bytes look like that are not a supported image, so that the error can say what to do."""

import base64
import binascii
import re

_SUPPORTED = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "GIF": (0, b"GIF8"),
    "WEBP": (8, b"WEBP"),
    "TIFF (little-endian)": (0, b"II*\x00"),
    "TIFF (big-endian)": (0, b"MM\x00*"),
    "BigTIFF (little-endian)": (0, b"II+\x00"),
    "BigTIFF (big-endian)": (0, b"MM\x00+"),
}
_UNSUPPORTED = {
    "JPEG 2000": (0, b"\x00\x00\x00\x0cjP  "),
    "JPEG 2000 (codestream)": (0, b"\xff\x4f\xff\x51"),
    "JPEG XL": (0, b"\x00\x00\x00\x0cJXL "),
    "JPEG XL (codestream)": (0, b"\xff\x0a"),
    "JPEG XR": (0, b"II\xbc"),
    "Photoshop": (0, b"8BPS"),
    "PDF": (0, b"%PDF-"),
    "DICOM": (128, b"DICM"),
    "OpenEXR": (0, b"\x76\x2f\x31\x01"),
    "Radiance HDR": (0, b"#?RADIANCE"),
    "DirectDraw Surface": (0, b"DDS "),
    "QOI": (0, b"qoif"),
    "ICO": (0, b"\x00\x00\x01\x00"),
    "raw (Fujifilm)": (0, b"FUJIFILMCCD-RAW"),
    "raw (Olympus)": (0, b"IIRO"),
    "raw (Panasonic)": (0, b"IIU\x00"),
    "WebM or Matroska video": (0, b"\x1a\x45\xdf\xa3"),
}
# Brands of ISO base media files (ISO/IEC 14496-12): HEIF is ISO/IEC 23008-12, annex B
_BRANDS = {
    "AVIF": {b"avif"},
    "HEIC": {b"heic", b"heix", b"heim", b"heis"},
    "JPEG XS in HEIF": {b"jxsi", b"jxsc"},
    "raw (Canon)": {b"crx "},
    "HEIF": {b"mif1", b"mif2", b"mif3", b"miaf"},
}
_SEQUENCES = {
    "an animated AVIF": {b"avis"},
    "a HEIF image sequence": {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"},
}
"""By the major brand alone: a still image may have further frames, and says so by its other brands."""
HEIF_FORMATS = ("AVIF", "HEIC", "HEIF")
_COMPRESSED = {
    "gzip": b"\x1f\x8b",
    "zip": b"PK\x03\x04",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "7z": b"7z\xbc\xaf",
}
_SENT_AS_TEXT = (
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",  # JPEG, with the character for what is not UTF-8
    b"\xef\xbf\xbdPNG",
    b"\xc3\xbf\xc3\x98\xc3\xbf",  # JPEG, from Latin-1 to UTF-8
    b"\xc2\x89PNG",
    b"\x89PNG\n",
    b"\x89PNG\r\r",
)
_HEAD_BYTES = 4096
_BRAND_BYTES = 256
_BASE64 = re.compile(rb"[\s\"']*([A-Za-z0-9+/_\-\s]{16,})")
_HEX = re.compile(rb"[\s\"']*(?:0x)?([0-9a-fA-F]{16,})")


def heif_format(data: bytes | memoryview) -> str:
    """ "AVIF", "HEIC" or "HEIF"; empty for other files."""
    brand = _brand(bytes(data[:_BRAND_BYTES]))
    return brand if brand in HEIF_FORMATS else ""


def supported_format(data: bytes) -> str:
    """The supported format that the bytes begin as; empty for none. BMP's signature is too short to tell."""
    return heif_format(data) or _find(data, _SUPPORTED)


def unsupported_format(data: bytes) -> str:
    """The format that is not supported and that the bytes begin as; empty for none."""
    if data[4:8] == b"ftyp":
        brand = _brand(data)
        return "" if brand in HEIF_FORMATS else brand
    text = _text(data)
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return "SVG"
    return _find(data, _UNSUPPORTED)


def explain(data: bytes) -> str:
    """What bytes in no known format look like, and what to do: "base64 text of a JPEG: …"; empty if nothing known."""
    head = data[:_HEAD_BYTES]
    text = _text(data)
    if text.startswith(b"data:"):
        return "a data URI: send what the part behind its comma is decoded to"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: run `git lfs pull` and send the file that it then is"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML, such as the page of a login or an error: download the image itself"
    if text.startswith((b"<?xml", b"<error")):
        return "XML, such as the error of an object store: download the image itself"
    if text.startswith((b"http://", b"https://", b"s3://", b"gs://", b"file://")):
        return "an address: send the image's bytes, since the server fetches nothing"
    if text.startswith((b"b'\\x", b'b"\\x')):
        return "bytes written as Python text: send the bytes themselves"
    if text.startswith((b"{", b"[")) and text[:64].isascii() and text[:64].decode().replace("\n", " ").isprintable():
        return "JSON: send the image's bytes alone"
    if head.startswith(_SENT_AS_TEXT):
        return "an image that was read or sent as text: read and send it as binary data"
    if name := next((name for name, magic in _COMPRESSED.items() if head.startswith(magic)), ""):
        return f"a file compressed by {name}: decompress it, and send each image in it"
    if head[257:262] == b"ustar":
        return "a tar archive: send each image in it"
    if head.startswith(b"\x93NUMPY"):
        return "an array of NumPy: encode it as PNG"
    for name, decoded in (("base64", _from_base64(head)), ("hexadecimal", _from_hex(head))):
        if inside := supported_format(decoded) or unsupported_format(decoded):
            return f"{name} text of a file in the format {inside}: decode it and send the bytes"
    if int.from_bytes(head[:4], "little") == len(data) - 4 and (inside := supported_format(data[4:])):
        return f"a length of four bytes and a file in the format {inside}: send the file alone"
    starts = [(head.find(magic), name) for name, (at, magic) in _SUPPORTED.items() if len(magic) > 2 and at == 0]
    if found := min(((at, name) for at, name in starts if at > 0), default=None):
        return f"a file in the format {found[1]} after {found[0]:,} other bytes: send the file alone"
    if head and not head.strip(b"\0"):
        return "a file of which nothing was written: its first bytes are all 0"
    return ""


def _brand(data: bytes) -> str:
    """What an ISO base media file holds; empty for other files."""
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4]), _BRAND_BYTES)
    major, brands = data[8:12], {data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))}
    if sequence := next((name for name, known in _SEQUENCES.items() if major in known), ""):
        return sequence
    return next((name for name, known in _BRANDS.items() if brands & known), "MP4 or QuickTime video")


def _find(data: bytes, signatures: dict[str, tuple[int, bytes]]) -> str:
    return next((name for name, (at, magic) in signatures.items() if data.startswith(magic, at)), "")


def _text(data: bytes) -> bytes:
    """The beginning as lower-case text, without a byte order mark and leading space."""
    head = data[:_HEAD_BYTES]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "replace").encode()
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def _from_base64(head: bytes) -> bytes:
    if not (match := _BASE64.match(head)):
        return b""
    digits = b"".join(match[1].split()).translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(digits[: len(digits) // 4 * 4])
    except binascii.Error:
        return b""


def _from_hex(head: bytes) -> bytes:
    match = _HEX.match(head)
    return bytes.fromhex(match[1][: len(match[1]) // 2 * 2].decode()) if match else b""
