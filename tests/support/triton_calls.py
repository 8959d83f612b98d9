"""What the calls of Triton's two clients share: inputs, and the check of errors.

Imports nothing of ours that has protobuf messages, whose names Triton's stubs have too.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

COLOURS = ("blue", "green", "red")
SEEN = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def encoded(colour: str) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), SEEN[colour]).save(buffer, "PNG")
    return buffer.getvalue()


def image_inputs(kind: Any, *contents: bytes, columns: bool = False) -> list[Any]:
    """Encoded images as the input of a request.

    Args:
        kind: the client's class `InferInput`.
        columns: send the shape [N, 1] instead of [N].
    """
    array = np.array(contents, np.object_)
    array = array[:, None] if columns else array
    tensor = kind("images", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return [tensor]


def pixel_inputs(kind: Any, *colours: str, **options: bool) -> list[Any]:
    """Decoded images of one colour each as the input of a request.

    Args:
        options: of `set_data_from_numpy`.
    """
    array = np.stack([np.full((30, 60, 3), SEEN[colour], np.uint8) for colour in colours])
    tensor = kind("pixels", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array, **options)
    return [tensor]


def rejected(call: Callable[[], object], *words: str, status: str) -> None:
    """Assert that a call fails with a status and all words in its message."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.status() == status, caught.value
    assert all(word in caught.value.message() for word in words), caught.value
