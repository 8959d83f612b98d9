"""Memory: settings of the C library's allocator, and detection of errors that mean there was not enough memory.

By default glibc returns freed memory to the operating system as soon as 128 KiB at the end of the heap are free, and
maps larger blocks one by one. An image needs several such blocks, so most of its memory would be mapped, cleared and
unmapped again while all other threads wait: a third of the decoding time with two threads.

Python and NumPy raise MemoryError. C and C++ libraries report it in the text of their own errors, or only as a failure,
and the resizer, which is written in Rust, aborts the process. So memory is checked before such a library needs it, and
again after a failure that could have either cause.
"""

import ctypes
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

# from <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
TRIM_THRESHOLD = 64 * 2**20
"""Free bytes at the end of the heap from which they are returned."""
MMAP_THRESHOLD = 8 * 2**20
"""Larger blocks, those of very large images, are mapped one by one and returned when freed. Pillow keeps images in
blocks of nearly 16 MiB; if these were in the heap, gigabytes would stay with the process."""
MAX_BLOCKS = 65_536
"""glibc's own limit of blocks that are mapped one by one."""
NEVER = -1
ARENAS = 1
"""With one heap for each thread, the memory of closed models is scattered over all heaps and not returned: over forty
reloads the process then grows by half."""

_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory"  # Pillow's decoders, CUDA, TensorRT
    r"|insufficient memory"  # libjpeg
    r"|failed to allocate memory|bad_alloc"  # ONNX Runtime
    r"|alloc_failed",  # cuDNN, cuBLAS
    re.IGNORECASE,
)


def keep_freed_memory() -> None:
    """Let this process reuse the memory of one image for the next. Call it before threads are started.

    Does nothing with C libraries other than glibc.
    """
    _mallopt({_M_TRIM_THRESHOLD: TRIM_THRESHOLD, _M_MMAP_THRESHOLD: MMAP_THRESHOLD, _M_ARENA_MAX: ARENAS})


@contextmanager
def all_freed_memory_kept() -> Iterator[None]:
    """Let blocks of every size be reused in a `with` block, and return all free memory at its end.

    A training step allocates and frees gigabytes, as blocks of megabytes: mapping and clearing them one by one takes a
    third of its time. Does nothing with C libraries other than glibc.
    """
    _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: NEVER})
    try:
        yield
    finally:
        _mallopt({_M_MMAP_MAX: MAX_BLOCKS, _M_TRIM_THRESHOLD: TRIM_THRESHOLD})
        return_memory()


def _mallopt(settings: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)


def return_memory() -> None:
    """Return all free memory to the operating system, such as that of closed engines.

    Does nothing with C libraries other than glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be allocated."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def check_memory(count: int) -> None:
    """Allocate and free `count` bytes without touching them, which takes about a microsecond.

    Raises:
        MemoryError: if they cannot be allocated.
    """
    np.empty(count, np.uint8)


def can_allocate(count: int) -> bool:
    """Whether `count` bytes can be allocated now."""
    try:
        check_memory(count)
    except MemoryError:
        return False
    return True
