"""The parts of a multipart/form-data body, in memory (RFC 2046, section 5.1, and RFC 7578)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from itertools import islice, pairwise

from serving.api.errors import ApiError, invalid

MAX_HEAD_BYTES = 16 * 1024
"""Most bytes of the headers of one part."""
SEARCHED_BYTES = 2**20
_PARAMETER = re.compile(rb';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_ESCAPED = re.compile(rb'\\(["\\])')
"""curl writes a backslash before quotation marks and backslashes; browsers write %22."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a form."""

    content: memoryview
    """A view of the body."""
    head: bytes = b""
    """Its header lines."""

    @property
    def file_name(self) -> str:
        """The file name of Content-Disposition, as the client wrote it in UTF-8; empty if there is none.

        Raises:
            ApiError: INVALID_ARGUMENT, if it is not UTF-8.
        """
        for line in self.head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() != b"content-disposition":
                continue
            for parameter, quoted, plain in _PARAMETER.findall(value):
                if parameter.lower() == b"filename":
                    try:
                        return str((plain or _ESCAPED.sub(rb"\1", quoted)).decode())
                    except UnicodeDecodeError:
                        raise _invalid("the file name of a part is not UTF-8") from None
        return ""


def parse_parts(body: bytes, content_type: str, most: int) -> list[Part]:
    """All parts, in their order.

    Args:
        body: the whole body.
        content_type: the header, with the boundary.
        most: most parts.

    Raises:
        ApiError: INVALID_ARGUMENT, if the body is not multipart/form-data, or has no part or more than `most`.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise _invalid("its Content-Type has no boundary of 1 to 70 characters")
    found = [*islice(_delimiters(body, b"\r\n--" + boundary.encode()), most + 2)]
    count = max(0, len(found) - 1)
    if not 1 <= count <= most:
        message = f"the body has {count} parts{' or more' * (count > most)}; a request takes 1 to {most} images"
        raise invalid("COUNT_OUT_OF_RANGE", message, "images", most=str(most))
    if not body.startswith(b"--", found[-1][1]):
        raise _invalid("it ends before its last boundary")
    view = memoryview(body)
    parts = [view[end:start] for (_, end), (start, _) in pairwise(found)]
    return [_to_part(part, index) for index, part in enumerate(parts)]


def _delimiters(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each delimiter. The first one may lack its line break, if the body begins with it.

    Searches in pieces, between which other threads run: one search of many megabytes would hold the interpreter's lock.
    """
    at = 0
    if body.startswith(delimiter[2:]):
        at = len(delimiter) - 2
        yield 0, at
    searched = at
    while searched < len(body):
        start = body.find(delimiter, max(at, searched - len(delimiter)), searched + SEARCHED_BYTES)
        if start < 0:
            searched += SEARCHED_BYTES
            continue
        at = searched = start + len(delimiter)
        yield start, at


def _to_part(part: memoryview, index: int) -> Part:
    """Headers and content of a part; `part` begins after its delimiter."""
    head = bytes(part[:MAX_HEAD_BYTES])
    padding, _, headed = head.partition(b"\r\n")
    if padding.strip(b" \t"):
        raise _invalid(f"part {index} does not begin with a line break")
    start = len(padding) + 2
    if headed.startswith(b"\r\n"):  # no headers
        return Part(part[start + 2 :])
    end = head.find(b"\r\n\r\n", start)
    if end < 0:
        raise _invalid(f"the headers of part {index} do not end within {MAX_HEAD_BYTES:,} bytes")
    return Part(part[end + 4 :], head[start:end])


def _invalid(problem: str) -> ApiError:
    return invalid("MESSAGE_INVALID", f"the body is not multipart/form-data: {problem}", "")
