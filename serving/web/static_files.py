"""The files of the web page, read once when the server starts."""

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from serving.web.browsers import PAGE_HEADERS

INDEX = "index.html"
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


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
    folder = files("serving.web") / "static"
    found = dict(_read(folder, "/")) if folder.is_dir() else {}
    if page := found.get(f"/{INDEX}"):
        found["/"] = page
    return found


def _read(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif not entry.name.endswith((".py", ".md")):
            content = entry.read_bytes()
            found.append((prefix + entry.name, StaticFile(content, _media_type(entry.name), _etag(content))))
    return found


def _media_type(name: str) -> str:
    suffix = name[name.rfind(".") :]
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
