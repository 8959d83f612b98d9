"""The seeds of fuzzing: small images of every supported kind, and hostile ones."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.images import encoded, grey12_tiff, grey16_png, heic, sample_image


def seeds() -> dict[str, bytes]:
    """Encoded images by name, each of a few hundred to a few thousand bytes."""
    image = sample_image().resize((24, 18))
    grey, animation = image.convert("L"), [image, image.rotate(90)]
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "plain.jpg": encoded(image, "JPEG"),
        "grey.jpg": encoded(grey, "JPEG"),
        "full.jpg": encoded(image, "JPEG", subsampling=0, optimize=True),
        "restarts.jpg": encoded(image, "JPEG", restart_marker_blocks=1),
        "comment.jpg": encoded(image, "JPEG", comment=b"\xff\xda\xff\xc0"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "exif.jpg": encoded(image, "JPEG", exif=exif),
        "xmp.jpg": encoded(image, "JPEG", xmp=b"<x:xmpmeta/>"),
        "two.mpo": encoded(image, "MPO", save_all=True, append_images=[image]),
        "rgb.png": encoded(image, "PNG"),
        "rgba.png": encoded(image.convert("RGBA"), "PNG"),
        "palette.png": encoded(image.quantize(8), "PNG", transparency=1),
        "grey16.png": encoded(grey.convert("I;16"), "PNG"),
        "grey12.png": grey16_png(np.asarray(grey, np.uint16) << 4, significant_bits=12),
        "grey12.tiff": grey12_tiff(np.asarray(grey, np.uint16) << 4),
        "moving.png": encoded(image, "PNG", save_all=True, append_images=animation[1:]),
        "lossy.webp": encoded(image, "WEBP"),
        "lossless.webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "moving.webp": encoded(image, "WEBP", save_all=True, append_images=animation[1:]),
        "still.gif": encoded(image, "GIF"),
        "moving.gif": encoded(image, "GIF", save_all=True, append_images=animation[1:]),
        "rgb.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(image.quantize(8), "BMP"),
        "still.avif": encoded(image, "AVIF"),
        "alpha.avif": encoded(image.convert("RGBA"), "AVIF", exif=exif),
        "moving.avif": encoded(image, "AVIF", save_all=True, append_images=animation[1:]),
        "still.heic": heic(image),
        "alpha.heic": heic(image.convert("RGBA"), exif=exif.tobytes()),
        "exif.tiff": encoded(image, "TIFF", exif=exif),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"{compression}.tiff"] = encoded(image, "TIFF", compression=compression)
    made["group4.tiff"] = encoded(image.convert("1"), "TIFF", compression="group4")
    made["motion.jpg"] = made["exif.jpg"] + b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xd8" * 200
    made["appended.jpg"] = made["progressive.jpg"] + made["progressive.jpg"]
    made["appended.png"] = made["rgb.png"] + bytes(300)
    made["huge.jpg"] = with_jpeg_size(made["plain.jpg"], 65_535, 65_535)
    return made


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its frame header (ITU-T T.81, B.2.2)."""
    frame = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) >= 0)
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def write_seeds(folder: Path) -> None:
    """Write each seed to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / name).write_bytes(data)
