"""Why a server cannot start, or not serve any more."""

from collections.abc import Iterator
from contextlib import contextmanager


class StartupError(Exception):
    """The server cannot start; the message says why and what to change."""


class ServerFailed(Exception):
    """The server cannot serve any more; the message says why."""


@contextmanager
def listen_errors(address: str, option: str) -> Iterator[None]:
    """Turn the error of an address that cannot be used into StartupError."""
    try:
        yield
    except OSError as error:
        part = f" ({error.filename})" if error.filename not in (None, address) else ""
        raise StartupError(
            f"cannot listen on {address}{part}: {error.strerror}; stop the other server, or choose another address "
            f"with {option}"
        ) from error
