"""Keys change while servers run: tokens are accepted until their key's end and rejected afterwards."""

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from serving.tokens.keyring import Keyring, TokenExpired, load_keys, rotate
from serving.tokens.tokens import PredictionRecord, TokenError, TokenSigner

RECORD = PredictionRecord(b"0" * 16, "pets", 1, 0, 0.5, 0)
OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def write(path: Path, *lines: str) -> Path:
    temporary = path.with_suffix(".new")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    temporary.chmod(0o600)
    temporary.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "token.key"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []  # no temporary file stays


def test_a_keyring_creates_its_key_file_and_another_one_reads_it(path: Path) -> None:
    token = Keyring(path).sign(RECORD)
    assert Keyring(path).verify(token) == RECORD
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_replicas_follow_a_rotation_without_a_restart_and_without_losing_tokens(path: Path) -> None:
    replicas = [Keyring(path, check_every_s=0), Keyring(path, check_every_s=0)]
    before = replicas[0].sign(RECORD)
    rotate(path, sign_after=timedelta(hours=1), accept_old=timedelta(days=1))
    assert [replica.sign(RECORD) for replica in replicas] == [
        before,
        before,
    ]  # not yet: another replica may not know the key
    old, new = load_keys(path)
    write(path, *(key.to_line() for key in (old, type(new)(new.secret, sign_from=time.time() - 1))))
    after = replicas[0].sign(RECORD)
    assert after != before
    for replica in replicas:
        assert replica.verify(before) == replica.verify(after) == RECORD


def test_the_newest_key_that_has_begun_signs(path: Path) -> None:
    write(path, OLD.hex(), f"{NEW.hex()} sign-from={ago(1)}", f"{bytes(40).hex()} sign-from={ago(-3600)}")
    assert Keyring(path).sign(RECORD) == TokenSigner([NEW]).sign(RECORD)


def test_keys_without_times_sign_with_the_first_and_accept_all(path: Path) -> None:
    ring = Keyring(write(path, NEW.hex(), OLD.hex()))
    assert ring.sign(RECORD) == TokenSigner([NEW]).sign(RECORD)
    assert ring.verify(TokenSigner([OLD]).sign(RECORD)) == RECORD


def test_a_token_of_an_ended_key_is_expired_and_one_of_an_unknown_key_is_invalid(path: Path) -> None:
    ring = Keyring(write(path, f"{OLD.hex()} accept-until={ago(1)}", NEW.hex()))
    with pytest.raises(TokenExpired):
        ring.verify(TokenSigner([OLD]).sign(RECORD))
    with pytest.raises(TokenError):
        ring.verify(TokenSigner([bytes(32)]).sign(RECORD))


def test_a_key_ends_while_the_keyring_is_in_use(path: Path) -> None:
    write(path, f"{OLD.hex()} accept-until={ago(-60)}", f"{NEW.hex()} sign-from={ago(9)}")
    now = [time.time()]
    ring = Keyring(path, check_every_s=0, clock=lambda: now[0])
    token = TokenSigner([OLD]).sign(RECORD)
    assert ring.verify(token) == RECORD
    now[0] += 120
    with pytest.raises(TokenExpired):
        ring.verify(token)


@pytest.mark.parametrize("shift_s", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_there_is_a_signing_key_after_a_clock_jump(path: Path, shift_s: float) -> None:
    rotate(path, sign_after=timedelta(0), accept_old=timedelta(days=1))
    ring = Keyring(path, check_every_s=0, clock=lambda: time.time() + shift_s)
    assert ring.verify(ring.sign(RECORD)) == RECORD


def test_a_malformed_change_leaves_the_earlier_keys_in_use(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = Keyring(write(path, OLD.hex()), check_every_s=0)
    token = ring.sign(RECORD)
    for broken in ((), ("nonsense",), (f"{NEW.hex()} sign-from=yesterday",)):
        write(path, *broken)
        assert ring.verify(token) == RECORD
    path.unlink()
    assert ring.sign(RECORD) == token
    assert NEW.hex()[:8] not in caplog.text
    write(path, NEW.hex())
    assert ring.sign(RECORD) != token


@pytest.mark.parametrize(
    "attributes", ["later", "sign-from=2026-01-01T00:00:00", "sign-from=x", "accept-until=2026-01-01T00:00:00Z " * 2]
)
def test_malformed_lines_are_rejected(path: Path, attributes: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: .*sign-from|line 1: accept-until"):
        load_keys(write(path, f"{OLD.hex()} {attributes}"))


def test_concurrent_rotations_lose_no_key(path: Path) -> None:
    with ThreadPool(4) as pool:
        pool.map(lambda _: rotate(path, sign_after=timedelta(0), accept_old=timedelta(days=1)), range(8))
    assert len({key.secret for key in load_keys(path)}) == 9


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root may give files away")
def test_a_rotation_by_root_keeps_the_owner_and_the_mode(path: Path) -> None:
    write(path, OLD.hex())
    os.chown(path, 1234, 2345)
    path.chmod(0o640)
    rotate(path, sign_after=timedelta(0), accept_old=timedelta(days=1))
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o640)


def test_the_keys_of_another_user_are_not_rotated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(path, OLD.hex()).read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to the user with the ID"):
        rotate(path, sign_after=timedelta(0), accept_old=timedelta(days=1))
    assert path.read_bytes() == before


def test_a_rotation_follows_a_link_to_the_keys(path: Path, tmp_path: Path) -> None:
    write(path, OLD.hex())
    link = tmp_path / "link.key"
    link.symlink_to(path)
    rotate(link, sign_after=timedelta(0), accept_old=timedelta(days=1))
    assert link.is_symlink()
    assert len(load_keys(path)) == 2


def test_a_rotation_keeps_earlier_ends_and_drops_keys_that_ended_long_ago(path: Path) -> None:
    soon = ago(-60)
    write(path, f"{OLD.hex()} accept-until={ago(400 * 86400)}", f"{NEW.hex()} accept-until={soon}", bytes(32).hex())
    rotate(path, sign_after=timedelta(0), accept_old=timedelta(days=1))
    keys = load_keys(path)
    assert [key.secret for key in keys[:-1]] == [NEW, bytes(32)]
    assert keys[0].accept_until == pytest.approx(datetime.fromisoformat(soon).timestamp(), abs=1)
    assert keys[-1].secret not in (OLD, NEW, bytes(32))
