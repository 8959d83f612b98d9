"""The C library's allocator, told to keep what pictures leave behind, or to let go of what models left.

By default glibc gives freed memory back to the system as soon as 128 KiB of it lie at the end of the heap, and fetches
each larger block afresh. A picture takes several such blocks, so most of its memory would be mapped, cleared and
unmapped again, with every other thread held up meanwhile: a third of the time of decoding on two threads.

What a library raised in; whether this process had too little memory for it, out.

Python and NumPy raise MemoryError. Libraries of C and C++ say it in the text of errors of their own, or only that
something went wrong; the resizer, of Rust, ends the whole process. So what such a library is about to need is reserved
before, and what was needed is reserved once more after a failure that could be either.
"""

import ctypes
import re

import numpy as np

# from <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
TRIM_THRESHOLD = 64 * 2**20
"""Freed bytes at the end of a heap beyond which they are given back."""
MMAP_THRESHOLD = 8 * 2**20
"""Blocks of more bytes, those of very large pictures, are mapped one by one, and given back when freed. Pillow keeps
pictures in blocks of a little less than 16 MiB: with those in the heap, gigabytes stayed with the process."""

HEAPS = 1
"""With one heap for each thread, what retired models leave behind is scattered over all of them, and is not given back:
over forty reloads the process then grows by a half."""


def keep_freed_memory() -> None:
    """Let this process use the memory of one picture for the next; to be called before threads are started.

    Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_ARENA_MAX, HEAPS)


def return_memory() -> None:
    """Give all that is free back to the operating system. Does nothing where the C library is another.

    What engines allocated in several threads otherwise stays with the process.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


_SAID = re.compile(
    r"out ?of ?memory"  # Pillow's decoders, CUDA, TensorRT
    r"|insufficient memory"  # libjpeg
    r"|failed to allocate memory|bad_alloc"  # ONNX Runtime
    r"|alloc_failed",  # cuDNN, cuBLAS
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
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
