"""Compression of responses, where the client accepts it."""

import zlib

from starlette.datastructures import Headers
from starlette.responses import Response

MIN_BYTES = 1024
"""Smaller responses are sent as they are."""
LEVEL = 1
"""Compression level of zlib: higher levels take longer than most networks save."""
WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""zlib's parameter for each content encoding."""


def compress(response: Response, headers: Headers) -> None:
    """Compress the body of a response in place, if it is worth it and the client accepts it."""
    body = getattr(response, "body", b"")
    if len(body) < MIN_BYTES or "content-encoding" in response.headers:
        return
    encoding = accepted_encoding(headers.get("accept-encoding", ""))
    response.headers.append("vary", "accept-encoding")
    if not encoding:
        return
    encoder = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[encoding])
    response.body = encoder.compress(body) + encoder.flush()
    response.headers["content-encoding"] = encoding
    response.headers["content-length"] = str(len(response.body))


def accepted_encoding(accept: str) -> str:
    """`gzip` or `deflate`, whichever the client names first with a weight above 0; "" if it accepts neither."""
    for part in accept.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in WINDOW_BITS and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name.strip()
    return ""
