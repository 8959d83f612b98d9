"""The files of the web page, read once when the server starts."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response

from serving.web.browsers import PAGE_HEADERS

TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Media types of the files that are served, by their suffixes."""


@dataclass(frozen=True)
class StaticFile:
    """A file and its headers."""

    content: bytes
    media_type: str
    etag: str

    async def respond(self, request: Request) -> Response:
        """The file, or 304 if the browser has it already."""
        headers = {"etag": self.etag, "cache-control": "no-cache", **PAGE_HEADERS}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_static_files() -> dict[str, StaticFile]:
    """The files in the package's folder `static`, by their URL path; "/" is the page."""
    found = {}
    for entry in (files("serving.web") / "static").iterdir():
        if media_type := TYPES.get(PurePath(entry.name).suffix):
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[f"/{entry.name}"] = StaticFile(content, media_type, etag)
    found["/"] = found["/index.html"]
    return found
