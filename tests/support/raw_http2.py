"""A gRPC client that writes HTTP/2 frames itself (RFC 9113), so that it can stop at any byte."""

import socket
import struct

from tests.support.waiting import LIMIT_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0x0, 0x1, 0x4, 0x6
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 0x4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(method: str) -> bytes:
    """The headers of a gRPC call, each a literal without index (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )


class RawClient:
    """A connection to HOST:PORT. With `window` 0 the server may send no responses."""

    def __init__(self, address: str, *, window: int = 65_535) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, ACK, 0, b""))

    def call(self, method: str, message: bytes, *, sent: float = 1.0, stream: int = 1) -> None:
        """Begin a call and send a message of at most 16 kB, or the fraction `sent` of it."""
        content = b"\0" + struct.pack(">I", len(message)) + message
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, headers(method)))
        part = content[: int(len(content) * sent)]
        if part:
            self.socket.sendall(frame(DATA, END_STREAM if sent == 1.0 else 0, stream, part))

    def vanish(self) -> None:
        """Close the connection so that the server sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
