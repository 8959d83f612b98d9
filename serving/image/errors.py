"""Why bytes could not become an image. A module of its own, since opening and decoding raise it."""

from enum import StrEnum


class Reason(StrEnum):
    """Why bytes could not become an image: stable codes that clients may test for."""

    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    TRUNCATED = "TRUNCATED"
    """Begins as an image, but ends early or is damaged."""
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"


class ImageError(ValueError):
    """Bytes that cannot be decoded; `reason` is a stable code, the message is for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
