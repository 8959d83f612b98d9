"""A file of keys on the disk: made once, whole and private; read if nobody else can have written it."""

import os
import re
import secrets
import stat
from base64 import b64decode
from pathlib import Path

from serving.tokens import MIN_KEY_BYTES, check_length

MAX_KEY_FILE_BYTES = 65_536

_HEX = re.compile(r"[0-9A-Fa-f]+")
_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")


def read_key_file(path: Path) -> str:
    """The text of a key file. Who may read it can forge tokens; that is not checked, since secrets are often mounted
    readable by a group.

    Raises:
        ValueError: if others may write to it, or it is too large to be one.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{path} has mode {mode:04o}, so others may change the keys; run chmod 600 on it")
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_KEY_FILE_BYTES:,} bytes; it is no key file")
    # what is not ASCII fails as a key, by its line; the characters themselves belong in no message
    return content.decode("ascii", errors="replace")


def create_key_file(path: Path) -> None:
    """Make a key file with one random key, readable by its owner only, unless there is one.

    Processes that start together agree on one key. Raises OSError if it cannot be made.
    """
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(MIN_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces: of several processes one makes the file, whole, and all read it.
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def parse_key(text: str, where: str) -> bytes:
    """A key, from hexadecimal or base64. Raises ValueError, which begins with `where`, and tells nothing of the key."""
    try:
        if _HEX.fullmatch(text):  # with a digit missing it is still no base64
            key = bytes.fromhex(text)
        else:
            unpadded = text.rstrip("=").translate(_TO_STANDARD_BASE64)
            key = b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{where}: neither hexadecimal nor base64; write one key a line") from None
    return check_length(key, where)
