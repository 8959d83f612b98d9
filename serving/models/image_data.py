"""Images as they arrive: encoded bytes, a view of them in their request, or pixels."""

import numpy as np
from numpy.typing import NDArray

EncodedImage = bytes | memoryview
"""An encoded image; a view of the request that it came in if copying it would take long."""
ImageData = EncodedImage | NDArray[np.uint8]
"""An encoded image, or a decoded one: uint8 `[H, W, 3]`, RGB and upright."""

COPIED_BYTES = 2**20
"""Bytes of a view that are copied at once."""


def size_of(image: ImageData) -> int:
    """Bytes of an image as it was sent."""
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def copy_view(image: EncodedImage) -> bytes:
    """The bytes of a view, copied in pieces, between which other threads run.

    One copy of many megabytes would hold the interpreter's lock for long. Joining bytes releases it.
    """
    if isinstance(image, bytes):
        return image
    return b"".join([bytes(image[at : at + COPIED_BYTES]) for at in range(0, len(image), COPIED_BYTES)])
