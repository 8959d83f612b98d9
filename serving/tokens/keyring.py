"""The keys that sign prediction tokens: a file that servers follow without a restart.

The file holds one key a line, in hexadecimal or base64, followed by optional times in ISO 8601 with a time zone:

    KEY [sign-from=TIME] [accept-until=TIME]

The signing key is the one with the latest sign-from among those that have begun and not ended; keys without sign-from
come last, and of several the first one signs. Every key is accepted until its end; the signing key always is. A new
key can therefore be in the files of all replicas before any of them signs with it.
"""

import os
import re
import secrets
import stat
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf, isfinite
from pathlib import Path

from serving.system.files import locked, write_atomically
from serving.system.reloading import CHECK_EVERY_S, Reloading
from serving.tokens.tokens import MIN_KEY_BYTES, PredictionRecord, TokenError, TokenSigner, check_length

MAX_KEY_FILE_BYTES = 65_536
KEEP_ENDED = timedelta(days=365)
"""How long a key stays in the file after its end: with it, its tokens are reported as expired, not as forged."""

_HEX = re.compile(r"[0-9A-Fa-f]+")
_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")
_ATTRIBUTE = re.compile(r"(sign-from|accept-until)=(\S+)")


class TokenExpired(ValueError):
    """A valid token whose key has ended."""

    def __init__(self) -> None:
        super().__init__("the token's key was replaced too long ago, so its label can no longer be recorded")


@dataclass(frozen=True)
class Key:
    """One key and when it is used; times are in Unix seconds."""

    secret: bytes = field(repr=False)  # since representations appear in logs
    sign_from: float = -inf
    accept_until: float = inf

    def to_line(self) -> str:
        """Format the key as a line of the file."""
        times = {"sign-from": self.sign_from, "accept-until": self.accept_until}
        attributes = [f"{name}={_format_time(seconds)}" for name, seconds in times.items() if isfinite(seconds)]
        return " ".join([self.secret.hex(), *attributes])


class Keyring:
    """Signs and verifies tokens with the keys of a file, and follows changes of the file. Any thread may verify."""

    def __init__(
        self, path: Path, *, check_every_s: float = CHECK_EVERY_S, clock: Callable[[], float] = time.time
    ) -> None:
        """Read the file; create it with a random key if there is none.

        Args:
            path: the key file.
            check_every_s: how often to check whether it has changed, in seconds.
            clock: the time now, in Unix seconds.

        Raises:
            ValueError: if the file holds no key or a malformed line, or others may write to it.
            OSError: if the file cannot be read or created.
        """
        create_key_file(path)
        self._check_every_s = check_every_s
        self._clock = clock
        self._keys = Reloading("token keys", [path], lambda: load_keys(path), check_every_s=check_every_s)
        self._next_check = -inf
        self._update()

    def sign(self, record: PredictionRecord) -> str:
        """Sign a record; returns its token."""
        if time.monotonic() >= self._next_check:
            self._update()
        return self._accepted.sign(record)

    def verify(self, token: str) -> PredictionRecord:
        """Return the record that was signed.

        Raises:
            TokenError: if none of the keys signed the token.
            TokenExpired: if its key has ended.
        """
        if time.monotonic() >= self._next_check:
            self._update()
        try:
            return self._accepted.verify(token)
        except TokenError:
            if self._ended is None:
                raise
            self._ended.verify(token)
        raise TokenExpired

    def _update(self) -> None:
        """Sort the keys by what they may do now."""
        self._next_check = time.monotonic() + self._check_every_s
        now = self._clock()
        keys = self._keys.get()
        signing = _signing_key(keys, now)
        accepted = [key for key in keys if key.accept_until > now and key is not signing]
        ended = [key for key in keys if key.accept_until <= now and key is not signing]
        self._accepted = TokenSigner([key.secret for key in (signing, *accepted)])
        self._ended = TokenSigner([key.secret for key in ended]) if ended else None


def create_key_file(path: Path) -> None:
    """Create a key file with one random key, readable by its owner only, unless the file exists.

    Processes that start together end up with the same key. Raises OSError if the file cannot be created.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was faster, and its file is whole
            write_atomically(path, secrets.token_hex(MIN_KEY_BYTES) + "\n", mode=0o600, exclusive=True)


def load_keys(path: Path) -> list[Key]:
    """Read a key file.

    Raises:
        ValueError, OSError: as for Keyring. No message reveals any part of a key.
    """
    keys = [
        _parse_line(line, f"{path}, line {number}")
        for number, line in enumerate(_read_key_file(path).split("\n"), 1)
        if line.strip()
    ]
    if not keys:
        raise ValueError(f"{path} holds no key; write one a line, or delete the file to have one created")
    return keys


def rotate(path: Path, *, sign_after: timedelta, accept_old: timedelta) -> tuple[datetime, datetime]:
    """Add a new key to a key file, which keeps its owner and mode. Concurrent rotations wait for each other.

    Args:
        path: the file, or a link to it; created if there is none.
        sign_after: when the new key begins to sign: late enough for all replicas to have read it.
        accept_old: how long after that the earlier keys are accepted; keys that end sooner keep their end.

    Returns:
        When the new key begins to sign, and when the others end.

    Raises:
        ValueError, OSError: as for Keyring; ValueError also if the file belongs to another user.
    """
    path = path.resolve()
    now = datetime.now(UTC).replace(microsecond=0)
    begin = now + sign_after
    end = begin + accept_old
    create_key_file(path)
    with locked(path.parent):
        keys = [
            replace(key, accept_until=min(key.accept_until, end.timestamp()))
            for key in load_keys(path)
            if key.accept_until > (now - KEEP_ENDED).timestamp()
        ]
        keys.append(Key(secrets.token_bytes(MIN_KEY_BYTES), sign_from=begin.timestamp()))
        status = path.stat()
        if os.geteuid() not in (0, status.st_uid):
            raise ValueError(f"{path} belongs to the user with the ID {status.st_uid}; rotate as that user or as root")
        content = "".join(f"{key.to_line()}\n" for key in keys)
        write_atomically(path, content, mode=stat.S_IMODE(status.st_mode), owner=(status.st_uid, status.st_gid))
    return begin, end


def _read_key_file(path: Path) -> str:
    """Read the text of a key file.

    A user who can read the file can forge tokens; its permissions are not checked, since mounted secrets are often
    readable by a group.

    Raises:
        ValueError: if others may write to the file, or it is too large to be a key file.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{path} has mode {mode:04o}, so others may change the keys; run chmod 600 on it")
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_KEY_FILE_BYTES:,} bytes; it is not a key file")
    # what is not ASCII fails as a key, with its line number; no message may show the characters themselves
    return content.decode("ascii", errors="replace")


def _parse_line(line: str, where: str) -> Key:
    word, *attributes = line.split()
    times: dict[str, float] = {}
    for attribute in attributes:
        match = _ATTRIBUTE.fullmatch(attribute)
        if match is None or match[1] in times:
            raise ValueError(f"{where}: after the key come sign-from=TIME and accept-until=TIME, each at most once")
        try:
            parsed = datetime.fromisoformat(match[2])
        except ValueError:
            parsed = datetime.min
        if parsed.tzinfo is None:
            raise ValueError(f"{where}: {match[1]} must be a time with a time zone, such as 2026-01-31T12:00:00Z")
        times[match[1]] = parsed.timestamp()
    return Key(_parse_key(word, where), times.get("sign-from", -inf), times.get("accept-until", inf))


def _parse_key(text: str, where: str) -> bytes:
    """Parse hexadecimal or base64. Raises ValueError, which begins with `where` and reveals nothing of the key."""
    try:
        if _HEX.fullmatch(text):  # with a digit missing it is not base64 either
            key = bytes.fromhex(text)
        else:
            unpadded = text.rstrip("=").translate(_TO_STANDARD_BASE64)
            key = b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{where}: neither hexadecimal nor base64; write one key a line") from None
    return check_length(key, where)


def _signing_key(keys: Sequence[Key], now: float) -> Key:
    """Choose the key that signs now; there is always one, even in a gap between times or after a clock jump."""
    begun = [key for key in keys if key.sign_from <= now] or [min(keys, key=lambda key: key.sign_from)]
    usable = [key for key in begun if now < key.accept_until] or begun
    return max(usable, key=lambda key: key.sign_from)  # the first of equal ones


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
