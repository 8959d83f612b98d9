"""Signed prediction tokens: they carry what was predicted, so the server keeps no row for each prediction.

A token is url-safe base64, without padding, of these bytes (big-endian):

    format 1 (1), id 16, version 8, predicted 4, probability 8 (IEEE 754), time 8, model 1-63 (UTF-8), signature 16
    format 2 (1), …the same up to time…, shadow version 8 (0: none), length of model 1, model 1-63 (UTF-8),
        reference 0-256 (UTF-8), signature 16

A record without a reference and a shadow version is signed in format 1, which is shorter and which earlier releases
accept. The signature is the first half of the HMAC-SHA256 of all bytes before it. The contents are signed, not secret.
"""

import hmac
import struct
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from serving.bundle.model_version import ModelVersion

PLAIN_FORMAT = 1
FORMAT = 2
MIN_KEY_BYTES = 32
SIGNATURE_BYTES = 16
MAX_REFERENCE_BYTES = 256

_HEAD = struct.Struct(">B16sQIdQ")
_TAIL = struct.Struct(">QB")
_MAX_MODEL_BYTES = 63
_MIN_TOKEN_CHARS = -(-(_HEAD.size + 1 + SIGNATURE_BYTES) * 4 // 3)
_MAX_TOKEN_CHARS = -(-(_HEAD.size + _TAIL.size + _MAX_MODEL_BYTES + MAX_REFERENCE_BYTES + SIGNATURE_BYTES) * 4 // 3)
_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that end a line or steer a terminal, and of halves of surrogate pairs."""


class TokenError(ValueError):
    """A token that none of the keys signed. The message is always the same, so that it helps no forger."""

    def __init__(self) -> None:
        super().__init__("the token was altered, or issued under another key; send it exactly as it was received")


class ReferenceInvalid(ValueError):
    """A reference that is too long or has a control character. The message does not contain it."""


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """The contents of a token: one prediction.

    Raises:
        ValueError: if a field is out of its range.
    """

    id: bytes
    """16 random bytes, unique to the prediction."""
    model: str
    """Model name, 1 to 63 bytes in UTF-8."""
    version: int
    """Model version, from 1."""
    predicted: int
    """Index of the predicted class."""
    probability: float
    """Calibrated probability of the predicted class, 0 to 1."""
    time_ms: int
    """When it was predicted, in Unix milliseconds."""
    reference: str = ""
    """The client's own name of the image, at most 256 bytes in UTF-8, without control characters; empty for none."""
    shadow_version: int = 0
    """Version of the same model that was asked to classify the image as a shadow; 0 for none."""

    def __post_init__(self) -> None:
        if len(self.id) != 16:
            raise ValueError(f"id has {len(self.id)} bytes; it must have 16")
        if not 1 <= len(self.model.encode()) <= _MAX_MODEL_BYTES:
            raise ValueError(f"model is {self.model!r}; it must have 1 to {_MAX_MODEL_BYTES} bytes in UTF-8")
        if not 1 <= self.version < 2**63:
            raise ValueError(f"version is {self.version}; it must be 1 to 2^63 - 1")
        if not 0 <= self.predicted < 2**31:
            raise ValueError(f"predicted is {self.predicted}; it must be 0 to 2^31 - 1")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability is {self.probability}; it must be 0 to 1")
        if not 0 <= self.time_ms < 2**63:
            raise ValueError(f"time_ms is {self.time_ms}; it must be 0 to 2^63 - 1")
        if self.reference:
            check_reference(self.reference)
        if not 0 <= self.shadow_version < 2**63:
            raise ValueError(f"shadow_version is {self.shadow_version}; it must be 0 (none) to 2^63 - 1")

    @property
    def model_version(self) -> ModelVersion:
        """The version that predicted."""
        return ModelVersion(self.model, self.version)


class TokenSigner:
    """Signs with the first key and verifies with all keys, so that earlier tokens stay valid when a key is added.

    Raises:
        ValueError: if there is no key, or one shorter than 32 bytes.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("there are 0 keys; at least 1 is needed, and the first one signs")
        for number, key in enumerate(keys, 1):
            check_length(key, f"key {number}")
        # hmac.digest releases the interpreter's lock, and on a busy server getting it back takes longer than the
        # signature; copying a prepared HMAC keeps it.
        self._signers = tuple(hmac.new(key, digestmod="sha256") for key in keys)

    def sign(self, record: PredictionRecord) -> str:
        """Sign a record.

        Returns:
            Its token: at most 166 characters of A-Z, a-z, 0-9, '-' and '_'; 520 with a reference or shadow version.
        """
        extended = bool(record.reference or record.shadow_version)
        format_ = FORMAT if extended else PLAIN_FORMAT
        head = _HEAD.pack(format_, record.id, record.version, record.predicted, record.probability, record.time_ms)
        model = record.model.encode()
        if extended:
            body = head + _TAIL.pack(record.shadow_version, len(model)) + model + record.reference.encode()
        else:
            body = head + model
        return _encode(body + _signature(self._signers[0], body))

    def verify(self, token: str) -> PredictionRecord:
        """Return the record that was signed.

        Raises:
            TokenError: if the token is not exactly what `sign` returned under one of the keys.
        """
        if not _MIN_TOKEN_CHARS <= len(token) <= _MAX_TOKEN_CHARS:
            raise TokenError
        try:
            content = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise TokenError from None
        # Decoding ignores characters outside the alphabet and unused bits: accept only the one canonical spelling.
        if _encode(content) != token:
            raise TokenError
        body, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, _signature(signer, body)) for signer in self._signers):
            raise TokenError
        format_, id_, version, predicted, probability, time_ms = _HEAD.unpack_from(body)
        if format_ == PLAIN_FORMAT:
            return PredictionRecord(id_, body[_HEAD.size :].decode(), version, predicted, probability, time_ms)
        if format_ != FORMAT:
            raise TokenError
        shadow_version, model_bytes = _TAIL.unpack_from(body, _HEAD.size)
        names = body[_HEAD.size + _TAIL.size :]
        model, reference = names[:model_bytes].decode(), names[model_bytes:].decode()
        return PredictionRecord(id_, model, version, predicted, probability, time_ms, reference, shadow_version)


def _encode(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def _signature(signer: hmac.HMAC, body: bytes) -> bytes:
    signature = signer.copy()
    signature.update(body)
    return signature.digest()[:SIGNATURE_BYTES]


def check_reference(reference: str) -> None:
    """Check a client's own name of an image.

    Raises:
        ReferenceInvalid: if it has more than 256 bytes in UTF-8, or a control character.
    """
    if not reference.isprintable() and any(unicodedata.category(each) in _CONTROL_CATEGORIES for each in reference):
        raise ReferenceInvalid("reference has a control character or a line break; use a name of printable characters")
    if (size := len(reference.encode())) > MAX_REFERENCE_BYTES:
        raise ReferenceInvalid(f"reference has {size:,} bytes in UTF-8; at most {MAX_REFERENCE_BYTES} are allowed")


def check_length(key: bytes, where: str) -> bytes:
    """Return the key if it is long enough to sign with; otherwise raise a ValueError that begins with `where`."""
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"{where}: the key has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed")
    return key
