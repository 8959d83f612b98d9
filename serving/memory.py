"""Memory that was freed in; given back to the operating system."""

import ctypes


def return_memory() -> None:
    """Have the C library return free pages; does nothing where it is not glibc.

    What engines allocated in several threads otherwise stays with the process.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
