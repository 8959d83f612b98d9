"""HTTP requests of tests, with nothing but the standard library, so that a test sees what is on the wire."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.waiting import LIMIT_S


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.content)

    @property
    def reason(self) -> str:
        """The reason of the problem that the body describes."""
        problem = self.json()
        expected = "application/json" if "error" in problem else "application/problem+json"
        assert self.headers["content-type"] == expected, self
        assert problem["status"] == self.status
        return str(problem["reason"])


def ask(
    url: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "",
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request: GET, or POST if there is a body."""
    connection = connect(url, context)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    finally:
        connection.close()


def connect(url: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection to a server."""
    parts = urlsplit(url)
    assert parts.hostname
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=LIMIT_S, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=LIMIT_S)


def multipart(*contents: bytes) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a form with these files."""
    boundary = "tests-boundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{index}"\r\n\r\n'.encode() + content
        for index, content in enumerate(contents)
    ]
    body = b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}
