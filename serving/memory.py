"""Memory that was freed in; given back to the operating system. Does nothing where the C library is not glibc."""

import ctypes

_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Have all threads share one heap; to be called before threads are started.

    With one for each thread, what a retired model leaves behind is scattered over all of them: over forty reloads the
    process grows by a half, and with one heap not at all.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give free pages back: what engines allocated otherwise stays with the process."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
