"""A file of callers in; who a bearer token or a client certificate belongs to, and what it may do, out.

One caller a line, # begins a comment:

    ROLE[,ROLE] NAME CREDENTIAL

ROLE is predict, label or admin. NAME is 1 to 64 of A-Z a-z 0-9 . _ @ -; it may have several lines, with a credential
each, so that a token can be changed without a gap. CREDENTIAL is one of

    sha256:HEX      the SHA-256 of the caller's token
    certificate     a client certificate with NAME as its common name, or one of its alternative names
    anything else   the token itself, of at least 32 characters; the file may then not be readable by everybody
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.context import Role

MAX_FILE_BYTES = 2**20
MIN_TOKEN_CHARS = 32
MAX_TOKEN_CHARS = 1024

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_HASH = re.compile(r"sha256:([0-9A-Fa-f]{64})")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what a bearer token may consist of: RFC 6750, section 2.1


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """Somebody whom the file names."""

    name: str
    roles: frozenset[Role]


class ClientRegistry:
    """Who may do what."""

    def __init__(
        self,
        tokens: Sequence[tuple[bytes, RegisteredClient]],
        certificates: Iterable[RegisteredClient],
        *,
        plain: bool = False,
    ) -> None:
        """Of SHA-256 digests of tokens, and of names that certificates carry; `plain` if a token itself was given."""
        self._tokens = tuple(tokens)
        self._certificates = {principal.name: principal for principal in certificates}
        self.plain = plain

    @property
    def certificates(self) -> bool:
        """Whether somebody is known by a certificate."""
        return bool(self._certificates)

    def find_by_token(self, token: str) -> RegisteredClient | None:
        """Whose token it is. How long this takes says nothing about the tokens: all digests are compared, whole."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, principal in self._tokens:
            if hmac.compare_digest(digest, known):
                found = principal
        return found

    def find_by_certificate(self, names: Iterable[str]) -> RegisteredClient | None:
        """Whose certificate carries one of these names."""
        return next((self._certificates[name] for name in names if name in self._certificates), None)


def new_token() -> str:
    """A random token: 43 characters that a shell and a header leave alone."""
    return secrets.token_urlsafe(32)


def client_line(token: str, name: str, roles: Iterable[str]) -> str:
    """The line that makes a token known.

    Raises:
        ValueError: if the name or the roles cannot stand in the file.
    """
    line = f"{','.join(roles)} {name} sha256:{hashlib.sha256(token.encode()).hexdigest()}"
    _parse_line(line, "the new line")
    return line


def load_clients(path: Path) -> ClientRegistry:
    """Read the file.

    Raises:
        ValueError: if a line cannot be understood, a token stands there twice, nobody is named, others may write to the
            file, or everybody may read tokens in it. The message names the line, and nothing of what it says.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(MAX_FILE_BYTES + 1)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"{path} has mode {mode:04o}, so others may let callers in; run chmod go-w on it")
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes; it is no list of callers")
    access = parse_clients(content.decode("utf-8", errors="replace"), str(path))
    if access.plain and mode & stat.S_IROTH:
        raise ValueError(
            f"{path} has mode {mode:04o}, so everybody may read the tokens in it; run chmod o-r on it, or write "
            "sha256:HEX instead of tokens"
        )
    return access


def parse_clients(text: str, where: str) -> ClientRegistry:
    """Understand the lines; `where` begins the messages. Raises ValueError as `load_clients` does."""
    tokens: dict[bytes, RegisteredClient] = {}
    certificates: dict[str, RegisteredClient] = {}
    plain = False
    for number, line in enumerate(text.split("\n"), 1):
        if not (entry := line.partition("#")[0].strip()):
            continue
        principal, digest, is_plain = _parse_line(entry, f"{where}, line {number}")
        plain |= is_plain
        if digest is None:
            if principal.name in certificates:
                raise ValueError(f"{where}, line {number}: the certificate of {principal.name} is on an earlier line")
            certificates[principal.name] = principal
        elif digest in tokens:
            raise ValueError(f"{where}, line {number}: the same token is on an earlier line")
        else:
            tokens[digest] = principal
    if not tokens and not certificates:
        raise ValueError(f"{where} names nobody; write ROLE[,ROLE] NAME CREDENTIAL on a line")
    return ClientRegistry(list(tokens.items()), certificates.values(), plain=plain)


def _parse_line(line: str, where: str) -> tuple[RegisteredClient, bytes | None, bool]:
    """Who, the token's digest (None: a certificate), and whether the token itself stood there."""
    fields = line.split()
    if len(fields) != 3:
        raise ValueError(f"{where} has {len(fields)} words; write ROLE[,ROLE] NAME CREDENTIAL")
    roles, name, credential = fields
    if unknown := sorted(set(roles.split(",")) - set(Role)):
        raise ValueError(f"{where}: {unknown[0][:20]!r} is no role; there are {', '.join(Role)}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: the name must be 1 to 64 of A-Z a-z 0-9 . _ @ -")
    principal = RegisteredClient(name, frozenset(map(Role, roles.split(","))))
    if credential == "certificate":
        return principal, None, False
    if match := _HASH.fullmatch(credential):
        return principal, bytes.fromhex(match[1]), False
    if credential.startswith("sha256:"):
        raise ValueError(f"{where}: after sha256: come 64 hexadecimal digits, of `printf %s TOKEN | sha256sum`")
    if not _TOKEN.fullmatch(credential) or not MIN_TOKEN_CHARS <= len(credential) <= MAX_TOKEN_CHARS:
        raise ValueError(
            f"{where}: a token must be {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS:,} of A-Z a-z 0-9 . _ ~ + / = -; "
            "`python -m serving new-token` makes one"
        )
    return principal, hashlib.sha256(credential.encode()).digest(), True
