"""A file of keys on the disk: made once, whole and private; read if nobody else can have written it.

A file of keys in; a signer that follows it out: keys are changed with no restart, and old ones end at a stated time.

The file holds one key a line, in hexadecimal or base64, then what holds for it; times are ISO 8601 with their zone:

    KEY [sign-from=TIME] [accept-until=TIME]

Of the keys whose sign-from has passed and that have not ended, the one with the latest sign-from signs; of those
without any, the first. All are accepted until their end, and the one that signs in any case. So a new key can lie in
the files of all replicas before any of them signs with it.
"""

import fcntl
import os
import re
import secrets
import stat
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf, isfinite
from pathlib import Path

from serving.system.reloading import CHECK_EVERY_S, Reloading
from serving.tokens.tokens import MIN_KEY_BYTES, PredictionRecord, TokenError, TokenSigner, check_length

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


FORGET_AFTER = timedelta(days=365)
"""How long a key that has ended stays in the file, so that its tokens are told apart from forged ones."""

_ATTRIBUTE = re.compile(r"(sign-from|accept-until)=(\S+)")


class TokenExpired(ValueError):
    """A token of ours, whose key has been replaced for so long that it is no longer accepted."""

    def __init__(self) -> None:
        super().__init__("the token's key was replaced too long ago, so its label can no longer be recorded")


@dataclass(frozen=True)
class Key:
    """One key, and when it is used; times are in Unix seconds."""

    secret: bytes
    sign_from: float = -inf
    accept_until: float = inf

    def __repr__(self) -> str:  # without the secret: representations end up in logs
        return f"Key(sign_from={self.sign_from}, accept_until={self.accept_until})"

    def to_line(self) -> str:
        """Its line in the file."""
        words = [self.secret.hex()]
        times = {"sign-from": self.sign_from, "accept-until": self.accept_until}
        words += [f"{name}={_to_text(moment)}" for name, moment in times.items() if isfinite(moment)]
        return " ".join(words)


class Keyring:
    """Signs and verifies as the keys in a file say, and follows their changes. Any thread may verify."""

    def __init__(self, path: Path, *, check_every_s: float = CHECK_EVERY_S) -> None:
        """Read the file, or make one with a new key if there is none.

        Raises:
            ValueError: if a line cannot be understood, there is none, or others may write to the file.
            OSError: if the file cannot be read or made.
        """
        create_key_file(path)
        self._check_every_s = check_every_s
        self._keys = Reloading("token keys", [path], lambda: load_keys(path), check_every_s=check_every_s)
        self._next_check = -inf
        self._look()

    def sign(self, record: PredictionRecord) -> str:
        """The record's token."""
        if time.monotonic() >= self._next_check:
            self._look()
        return self._accepted.sign(record)

    def verify(self, token: str) -> PredictionRecord:
        """The record that was signed.

        Raises:
            TokenError: if none of the keys signed it.
            TokenExpired: if a key did that has ended.
        """
        if time.monotonic() >= self._next_check:
            self._look()
        try:
            return self._accepted.verify(token)
        except TokenError:
            if self._ended is None:
                raise
            self._ended.verify(token)
        raise TokenExpired

    def _look(self) -> None:
        self._next_check = time.monotonic() + self._check_every_s
        now = time.time()
        keys = self._keys.get()
        signing = _signing(keys, now)
        accepted = [key for key in keys if key.accept_until > now and key is not signing]
        ended = [key for key in keys if key.accept_until <= now and key is not signing]
        self._accepted = TokenSigner([key.secret for key in (signing, *accepted)])
        self._ended = TokenSigner([key.secret for key in ended]) if ended else None


def load_keys(path: Path) -> list[Key]:
    """Read a file of keys.

    Raises:
        ValueError, OSError: as Keyring says. No message tells anything of a key.
    """
    keys = [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(read_key_file(path).split("\n"), 1)
        if line.strip()
    ]
    if not keys:
        raise ValueError(f"{path} holds no key; write one a line, or delete the file to have one made")
    return keys


def rotate(path: Path, *, sign_after: timedelta, accept_old: timedelta) -> tuple[datetime, datetime]:
    """Add a new key to a file, which is written whole; two who do this at once wait for each other.

    Args:
        path: the file; made if there is none.
        sign_after: when the new key begins to sign: late enough for all replicas to have read it.
        accept_old: how long after that the keys before it are still accepted; an earlier end of theirs stays.

    Returns:
        When the new key begins to sign, and when the others end.

    Raises:
        ValueError, OSError: as Keyring does.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    begin = now + sign_after
    end = begin + accept_old
    create_key_file(path)
    with _locked(path.parent):
        keys = [
            replace(key, accept_until=min(key.accept_until, end.timestamp()))
            for key in load_keys(path)
            if key.accept_until > (now - FORGET_AFTER).timestamp()
        ]
        keys.append(Key(secrets.token_bytes(MIN_KEY_BYTES), sign_from=begin.timestamp()))
        _write(path, "".join(f"{key.to_line()}\n" for key in keys))
    return begin, end


def _signing(keys: Sequence[Key], now: float) -> Key:
    """The key that signs now. There is always one, also when times leave a gap, or the clock jumped back."""
    begun = [key for key in keys if key.sign_from <= now] or [min(keys, key=lambda key: key.sign_from)]
    usable = [key for key in begun if now < key.accept_until] or begun
    return max(usable, key=lambda key: key.sign_from)  # the first of equal ones


def _parse(line: str, where: str) -> Key:
    word, *attributes = line.split()
    times: dict[str, float] = {}
    for attribute in attributes:
        match = _ATTRIBUTE.fullmatch(attribute)
        if match is None or match[1] in times:
            raise ValueError(f"{where}: after the key come sign-from=TIME and accept-until=TIME, each at most once")
        try:
            moment = datetime.fromisoformat(match[2])
        except ValueError:
            moment = datetime.min
        if moment.tzinfo is None:
            raise ValueError(f"{where}: {match[1]} must be a time with its zone, such as 2026-01-31T12:00:00Z")
        times[match[1]] = moment.timestamp()
    return Key(parse_key(word, where), times.get("sign-from", -inf), times.get("accept-until", inf))


def _to_text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """Replace the file, whole, keeping who may read it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    mode = path.stat().st_mode & 0o777
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
