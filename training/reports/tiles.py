"""What the tiles of galleries show: small JPEGs, and predictions."""

import io

from PIL import Image

from serving.image.decode import decode
from training.data.images import LabelledImage, or_reason
from training.reports.page import name

THUMBNAIL = 288
"""Long side of an image in a page, in pixels; a gallery shows it smaller."""


def jpeg(image: LabelledImage) -> bytes:
    """The image as a small JPEG; grey if it can no longer be read."""
    pixels = or_reason(lambda: decode(image.read(), min_side=THUMBNAIL, limits=image.limits))
    small = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "grey") if isinstance(pixels, str) else Image.fromarray(pixels)
    return jpeg_of(small, THUMBNAIL)


def jpeg_of(image: Image.Image, longest: int) -> bytes:
    """An image as a JPEG whose sides are at most `longest` pixels."""
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    return buffer.getvalue()


def prediction(predicted: str, label: str, probability: float) -> str:
    """The predicted class, coloured by whether it is the label, and its probability, as HTML."""
    kind = "correct" if predicted == label else "incorrect"
    return f'<b class="{kind}">{name(predicted)}</b> {100 * probability:.1f}%'
