"""The parts of a multipart/form-data body, in memory (RFC 2046, section 5.1, and RFC 7578)."""

from email.message import Message

from serving.api.errors import ApiError, invalid

MAX_HEAD_BYTES = 16 * 1024
"""Most bytes of the headers of one part."""


def parse_parts(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The contents of all parts, in their order.

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
    delimiter = b"\r\n--" + boundary.encode()
    content = b"\r\n" + body  # the first delimiter may lack its line break
    count = content.count(delimiter) - 1
    if not 1 <= count <= most:
        message = f"the body has {max(0, count):,} parts; a request takes 1 to {most} images"
        raise invalid("COUNT_OUT_OF_RANGE", message, "images", most=str(most))
    _, *parts, last = content.split(delimiter)
    if not last.startswith(b"--"):
        raise _invalid("it ends before its last boundary")
    return [_content_of(part, index) for index, part in enumerate(parts)]


def _content_of(part: bytes, index: int) -> bytes:
    """What follows the headers of a part; `part` begins after its delimiter."""
    padding, _, headed = part[:MAX_HEAD_BYTES].partition(b"\r\n")
    if padding.strip(b" \t"):
        raise _invalid(f"part {index} does not begin with a line break")
    start = len(padding) + 2
    if headed.startswith(b"\r\n"):  # no headers
        return part[start + 2 :]
    end = part.find(b"\r\n\r\n", start, MAX_HEAD_BYTES)
    if end < 0:
        raise _invalid(f"the headers of part {index} do not end within {MAX_HEAD_BYTES:,} bytes")
    return part[end + 4 :]


def _invalid(problem: str) -> ApiError:
    return invalid("MESSAGE_INVALID", f"the body is not multipart/form-data: {problem}", "")
