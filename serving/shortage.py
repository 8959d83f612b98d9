"""What a library raised in; whether this process had too little memory for it, out.

Python and NumPy raise MemoryError. Libraries of C and C++ say it in the text of errors of their own, or only that
something went wrong; the resizer, of Rust, ends the whole process. So what such a library is about to need is reserved
before, and what was needed is reserved once more after a failure that could be either.
"""

import re

import numpy as np

_SAID = re.compile(
    r"out ?of ?memory"  # Pillow's decoders, CUDA, TensorRT
    r"|insufficient memory"  # libjpeg
    r"|failed to allocate memory|bad_alloc"  # ONNX Runtime
    r"|alloc_failed",  # cuDNN, cuBLAS
    re.IGNORECASE,
)


def says_shortage(error: BaseException) -> bool:
    """Whether an exception is about memory that could not be had."""
    return isinstance(error, MemoryError) or bool(_SAID.search(str(error)))


def reserve(count: int) -> None:
    """Ask for so many bytes, and give them back untouched, which takes about a microsecond.

    Raises:
        MemoryError: if they cannot be had.
    """
    np.empty(count, np.uint8)


def is_short_of(count: int) -> bool:
    """Whether so many bytes cannot be had."""
    try:
        reserve(count)
    except MemoryError:
        return True
    return False
