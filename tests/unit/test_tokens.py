"""Prediction tokens: verifying returns the record that was signed, and every other text is rejected."""

import os
import re
import secrets
import stat
import string
import traceback
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.tokens.keyring import create_key_file, load_keys
from serving.tokens.tokens import PredictionRecord, TokenError, TokenSigner

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
RECORD = PredictionRecord(bytes(range(16)), "pets", 3, 1, 0.97, 1_700_000_000_000)
ALPHABET = string.ascii_letters + string.digits + "-_"

records = st.builds(
    PredictionRecord,
    id=st.binary(min_size=16, max_size=16),
    model=st.text(st.characters(codec="utf-8"), min_size=1, max_size=63).filter(lambda text: len(text.encode()) <= 63),
    version=st.integers(1, 2**63 - 1),
    predicted=st.integers(0, 2**31 - 1),
    probability=st.floats(0, 1),
    time_ms=st.integers(0, 2**63 - 1),
    reference=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=256).filter(
        lambda text: len(text.encode()) <= 256
    ),
    shadow_version=st.integers(0, 2**63 - 1),
)


@given(records)
def test_verifying_a_token_returns_the_record_that_was_signed(record: PredictionRecord) -> None:
    signer = TokenSigner([KEY])
    token = signer.sign(record)

    assert signer.verify(token) == record
    assert re.fullmatch(r"[A-Za-z0-9_-]{83,520}", token)


def test_the_longest_record_fits() -> None:
    longest = replace(RECORD, model="m" * 63, reference="é" * 128, shadow_version=2**63 - 1)
    signer = TokenSigner([KEY])
    assert signer.verify(signer.sign(longest)) == longest


def test_the_token_format_does_not_change() -> None:
    """Tokens have no expiry: those that earlier releases issued must stay valid."""
    token = "AQABAgMEBQYHCAkKCwwNDg8AAAAAAAAAAwAAAAE_7wo9cKPXCgAAAYvP5WgAcGV0c7D9mqYiGZ1uqtqJbL3JLI4"
    assert TokenSigner([KEY]).sign(RECORD) == token
    assert TokenSigner([KEY]).verify(token) == RECORD


def test_format_2_does_not_change() -> None:
    record = replace(RECORD, reference="animals/cat 1.jpg", shadow_version=4)
    token = (
        "AgABAgMEBQYHCAkKCwwNDg8AAAAAAAAAAwAAAAE_7wo9cKPXCgAAAYvP5WgAAAAAAAAAAAQEcGV0c2Fu"
        "aW1hbHMvY2F0IDEuanBnffH-gscZkTeyUBXyXb7I4Q"
    )
    assert TokenSigner([KEY]).sign(record) == token
    assert TokenSigner([KEY]).verify(token) == record


def test_a_record_without_reference_and_shadow_keeps_the_format_that_earlier_releases_accept() -> None:
    first_bytes = [
        urlsafe_b64decode(TokenSigner([KEY]).sign(record)[:4])[0]
        for record in (RECORD, replace(RECORD, reference="cat.jpg"), replace(RECORD, shadow_version=4))
    ]
    assert first_bytes == [1, 2, 2]


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, reference="cat.jpg", shadow_version=4)])
def test_changing_any_character_is_rejected(record: PredictionRecord) -> None:
    signer = TokenSigner([KEY])
    token = signer.sign(record)

    for position, original in enumerate(token):
        for other in ALPHABET.replace(original, "") + "+/=.\n é\0":
            with pytest.raises(TokenError):
                signer.verify(token[:position] + other + token[position + 1 :])


def test_every_truncation_and_extension_is_rejected() -> None:
    signer = TokenSigner([KEY])
    token = signer.sign(RECORD)

    for length in range(len(token)):
        assert_rejected(signer, token[:length])
        assert_rejected(signer, token[length + 1 :])
    for extra in (*ALPHABET, "=", "==", "\n", " ", "A" * 1000):
        assert_rejected(signer, token + extra)
        assert_rejected(signer, extra + token)


@pytest.mark.parametrize("model", ["p", "pe", "pet"])
def test_a_token_has_one_valid_spelling(model: str) -> None:
    """Lengths of each remainder by 3: base64 leaves bits unused, and decoders ignore unknown characters."""
    signer = TokenSigner([KEY])
    token = signer.sign(PredictionRecord(RECORD.id, model, 3, 1, 0.97, 0))
    content = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    spellings = {token[:-1] + last for last in ALPHABET}
    spellings |= {token[:40] + inserted + token[40:] for inserted in ("\n", "=", ".", "\u200b")}
    spellings |= {urlsafe_b64encode(content).decode(), b64encode(content).decode(), token + "=", token.swapcase()}
    spellings.discard(token)

    assert signer.verify(token).model == model
    for spelling in spellings:
        assert_rejected(signer, spelling)


@given(
    st.one_of(
        st.text(max_size=600),
        st.text(ALPHABET, min_size=80, max_size=525),
        st.binary(min_size=60, max_size=395).map(lambda content: urlsafe_b64encode(content).decode().rstrip("=")),
    )
)
@example("")
def test_any_other_text_is_rejected(token: str) -> None:
    assert_rejected(TokenSigner([KEY]), token)


def test_a_huge_token_is_rejected_without_decoding_it() -> None:
    assert_rejected(TokenSigner([KEY]), "A" * 50_000_000)


def test_a_token_of_another_key_is_rejected() -> None:
    assert_rejected(TokenSigner([OTHER_KEY]), TokenSigner([KEY]).sign(RECORD))


def test_earlier_tokens_stay_valid_when_a_key_is_added() -> None:
    before, during, after = TokenSigner([KEY]), TokenSigner([OTHER_KEY, KEY]), TokenSigner([OTHER_KEY])
    old, new = before.sign(RECORD), during.sign(RECORD)

    assert during.verify(old) == during.verify(new) == after.verify(new) == RECORD
    assert_rejected(after, old)
    assert_rejected(before, new)


def test_all_rejections_have_one_message_that_reveals_no_key() -> None:
    signer = TokenSigner([KEY, OTHER_KEY])
    token = signer.sign(RECORD)
    messages = set()
    for bad in ("", token[:-1], token[:-2] + "AA", "é" * 90, TokenSigner([bytes(32)]).sign(RECORD)):
        with pytest.raises(TokenError) as caught:
            signer.verify(bad)
        messages.add(str(caught.value))
        trace = "".join(traceback.format_exception(caught.value))
        assert not contains_key(trace + repr(caught.value))
        assert caught.value.__context__ is None or caught.value.__suppress_context__

    assert len(messages) == 1
    assert not contains_key(repr(signer) + str(signer) + token)


def assert_rejected(signer: TokenSigner, token: str) -> None:
    with pytest.raises(TokenError):
        signer.verify(token)


def contains_key(text: str) -> bool:
    return any(
        spelled in text for key in (KEY, OTHER_KEY) for spelled in (key.hex(), repr(key), b64encode(key).decode())
    )


@pytest.mark.parametrize("keys", [[], [b""], [KEY, bytes(31)]])
def test_missing_and_short_keys_are_rejected(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="at least (1|32)"):
        TokenSigner(keys)


@pytest.mark.parametrize(
    "change",
    [
        {"id": bytes(15)},
        {"model": ""},
        {"model": "é" * 32},
        {"version": 0},
        {"version": 2**63},
        {"predicted": -1},
        {"probability": 1.0001},
        {"probability": float("nan")},
        {"time_ms": -1},
        {"reference": "r" * 257},
        {"reference": "é" * 129},
        {"reference": "cat\n.jpg"},
        {"reference": "\x1b[31mcat.jpg"},
        {"reference": "cat\u2028.jpg"},
        {"reference": "\ud800"},
        {"shadow_version": -1},
        {"shadow_version": 2**63},
    ],
)
def test_records_out_of_range_are_rejected(change: dict[str, object]) -> None:
    fields = {name: getattr(RECORD, name) for name in ("id", "model", "version", "predicted", "probability", "time_ms")}
    with pytest.raises(ValueError, match=next(iter(change))):
        PredictionRecord(**fields | change)


def test_a_key_file_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "token-keys"
    created = load_or_create_keys(path)

    assert [len(key) for key in created] == [32]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_keys(path) == created
    assert load_or_create_keys(tmp_path / "other") != created
    assert sorted(os.listdir(tmp_path)) == ["other", "token-keys"]


def test_keys_are_read_in_order_in_hexadecimal_and_base64(tmp_path: Path) -> None:
    keys = [secrets.token_bytes(size) for size in (32, 33, 48, 64)]
    path = key_file(
        tmp_path,
        f"{keys[0].hex()}\n\n  {b64encode(keys[1]).decode()}  \r\n"
        f"{urlsafe_b64encode(keys[2]).decode()}\n{b64encode(keys[3]).decode().rstrip('=')}",
    )

    assert load_or_create_keys(path) == keys


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no key"),
        (" \n\n", "holds no key"),
        (KEY.hex() + "\n" + KEY[:31].hex() + "\n", "line 2: the key has 31 bytes; at least 32"),
        (KEY.hex()[:-1], "line 1: neither hexadecimal nor base64"),
        (KEY.hex() + " # the old one", "line 1: after the key come"),
        (b64encode(KEY).decode()[:-3], "line 1: neither"),
        ("clé" * 20, "line 1: neither"),
        (KEY.hex() + "\n" * 70_000, "not a key file"),
    ],
)
def test_other_files_are_rejected_without_showing_their_contents(tmp_path: Path, content: str, message: str) -> None:
    path = key_file(tmp_path, content)

    with pytest.raises(ValueError, match=message) as caught:
        load_or_create_keys(path)
    assert KEY.hex()[:8] not in "".join(traceback.format_exception(caught.value))
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("mode", "safe"), [(0o600, True), (0o640, True), (0o444, True), (0o620, False), (0o602, False)]
)
def test_key_files_that_others_may_write_are_rejected(tmp_path: Path, mode: int, safe: bool) -> None:
    path = key_file(tmp_path, KEY.hex())
    path.chmod(mode)

    if safe:
        assert load_or_create_keys(path) == [KEY]
    else:
        with pytest.raises(ValueError, match=f"mode 0{mode:o}.*chmod 600"):
            load_or_create_keys(path)


def load_or_create_keys(path: Path) -> list[bytes]:
    create_key_file(path)
    return [key.secret for key in load_keys(path)]


def key_file(folder: Path, content: str) -> Path:
    path = folder / "token-keys"
    path.write_bytes(content.encode())
    path.chmod(0o600)
    return path
