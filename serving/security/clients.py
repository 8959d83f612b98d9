"""The file of clients: who a bearer token or a client certificate belongs to, and which roles the client has.

Each line is one client; # begins a comment:

    ROLE[,ROLE] NAME CREDENTIAL

ROLE is predict, label or admin. NAME is 1 to 64 of A-Z a-z 0-9 . _ @ -. A name may have several lines with a credential
each, so that a token can be replaced without an interruption. CREDENTIAL is one of

    sha256:HEX      the SHA-256 of the client's token
    certificate     a client certificate with NAME as its common name or one of its alternative names
    anything else   the token itself, at least 32 characters; then the file must not be readable by everybody
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.context import Role

MAX_FILE_BYTES = 2**20
MIN_TOKEN_CHARS = 32
MAX_TOKEN_CHARS = 1024

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_HASH = re.compile(r"sha256:([0-9A-Fa-f]{64})")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # the characters of bearer tokens: RFC 6750, section 2.1


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client of the file."""

    name: str
    roles: frozenset[Role]


@dataclass(frozen=True)
class ClientRegistry:
    """The clients of a file."""

    tokens: Mapping[bytes, RegisteredClient] = field(repr=False)
    """Clients with a token, by its SHA-256 digest."""
    certificates: Mapping[str, RegisteredClient]
    """Clients with a certificate, by its name."""
    plain: bool
    """Whether the file holds a token itself."""

    def find_by_token(self, token: str) -> RegisteredClient | None:
        """The client with this token. Compares all digests entirely, so that the duration reveals nothing of them."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, client in self.tokens.items():
            if hmac.compare_digest(digest, known):
                found = client
        return found

    def find_by_certificate(self, names: Iterable[str]) -> RegisteredClient | None:
        """The client that has one of these names of a certificate."""
        return next((self.certificates[name] for name in names if name in self.certificates), None)


def new_token() -> str:
    """A random token of 43 characters that need no quoting in a shell or a header."""
    return secrets.token_urlsafe(32)


def client_line(token: str, name: str, roles: Iterable[str]) -> str:
    """The line of the file for a token.

    Raises:
        ValueError: if the name or a role is invalid.
    """
    line = f"{','.join(roles)} {name} sha256:{hashlib.sha256(token.encode()).hexdigest()}"
    _parse_line(line, "the new line")
    return line


def load_clients(path: Path) -> ClientRegistry:
    """Read the file.

    Raises:
        ValueError: if a line is malformed, a token occurs twice, there is no client, the group or others may write to
            the file, or everybody may read tokens in it. The message has the line's number but not its content.
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(MAX_FILE_BYTES + 1)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"{path} has mode {mode:04o}, so others may add clients; run chmod go-w on it")
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES:,} bytes; it is not a file of clients")
    registry = parse_clients(content.decode("utf-8", errors="replace"), str(path))
    if registry.plain and mode & stat.S_IROTH:
        raise ValueError(
            f"{path} has mode {mode:04o}, so everybody may read the tokens in it; run chmod o-r on it, or write "
            "sha256:HEX instead of tokens"
        )
    return registry


def parse_clients(text: str, where: str) -> ClientRegistry:
    """Parse the lines; `where` begins the messages. Raises ValueError as `load_clients` does."""
    tokens: dict[bytes, RegisteredClient] = {}
    certificates: dict[str, RegisteredClient] = {}
    plain = False
    for number, line in enumerate(text.split("\n"), 1):
        if not (entry := line.partition("#")[0].strip()):
            continue
        client, digest, is_plain = _parse_line(entry, f"{where}, line {number}")
        plain |= is_plain
        if digest is None:
            if client.name in certificates:
                raise ValueError(f"{where}, line {number}: the certificate of {client.name} is also on an earlier line")
            certificates[client.name] = client
        elif digest in tokens:
            raise ValueError(f"{where}, line {number}: the same token is also on an earlier line")
        else:
            tokens[digest] = client
    if not tokens and not certificates:
        raise ValueError(f"{where} lists no client; write lines of ROLE[,ROLE] NAME CREDENTIAL")
    return ClientRegistry(tokens, certificates, plain)


def _parse_line(line: str, where: str) -> tuple[RegisteredClient, bytes | None, bool]:
    """The client, its token's digest (None: a certificate), and whether the line has the token itself."""
    fields = line.split()
    if len(fields) != 3:
        raise ValueError(f"{where} has {len(fields)} words; write ROLE[,ROLE] NAME CREDENTIAL")
    roles, name, credential = fields
    if unknown := sorted(set(roles.split(",")) - set(Role)):
        raise ValueError(f"{where}: {unknown[0][:20]!r} is not a role; the roles are {', '.join(Role)}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: the name must be 1 to 64 of A-Z a-z 0-9 . _ @ -")
    client = RegisteredClient(name, frozenset(map(Role, roles.split(","))))
    if credential == "certificate":
        return client, None, False
    if match := _HASH.fullmatch(credential):
        return client, bytes.fromhex(match[1]), False
    if credential.startswith("sha256:"):
        raise ValueError(f"{where}: write sha256: and 64 hexadecimal digits, from `printf %s TOKEN | sha256sum`")
    if not _TOKEN.fullmatch(credential) or not MIN_TOKEN_CHARS <= len(credential) <= MAX_TOKEN_CHARS:
        raise ValueError(
            f"{where}: a token must be {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS:,} of A-Z a-z 0-9 . _ ~ + / = -; "
            "make one with `python -m serving new-token`"
        )
    return client, hashlib.sha256(credential.encode()).digest(), True
