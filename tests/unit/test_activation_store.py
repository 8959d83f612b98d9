"""The activation store: rows are found by key, also after crashes."""

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.features.store import ActivationStore


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def fill(folder: Path, numbers: list[int]) -> None:
    store = ActivationStore(folder, 5)
    for number in numbers:
        store.append([key(number)], row(number)[None])


def row(number: int, width: int = 5) -> NDArray[np.float32]:
    return np.full(width, number, np.float32)


def test_rows_are_found_by_key_in_this_and_in_later_processes(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, 5)
    assert store.find([key(1)]).tolist() == [-1]
    store.append([key(n) for n in range(100)], np.stack([row(n) for n in range(100)]))
    for reader in (store, ActivationStore(tmp_path, 5)):
        rows = reader.find([key(7), key(500), key(99), key(0)])
        assert rows[1] == -1
        assert reader.rows[rows[[0, 2, 3]], 0].tolist() == [7, 99, 0]


def test_a_crash_between_rows_and_keys_loses_only_the_rows_being_added(tmp_path: Path) -> None:
    fill(tmp_path, [1, 2])
    with (tmp_path / "rows.f32").open("ab") as rows:
        rows.write(b"\0" * 33)  # a row and a bit, without keys
    store = ActivationStore(tmp_path, 5)
    assert len(store) == 2
    store.append([key(3)], row(3)[None])
    assert store.rows[store.find([key(3)])].tolist() == [[3.0] * 5]
    with (tmp_path / "keys.bin").open("ab") as keys:
        keys.write(key(4)[:10])
    assert ActivationStore(tmp_path, 5).find([key(1), key(2), key(3), key(4)]).tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("at", range(3))
def test_a_row_that_was_overwritten_by_zeros_is_not_found_until_it_is_appended_again(tmp_path: Path, at: int) -> None:
    fill(tmp_path, [1, 2, 3])
    with (tmp_path / "rows.f32").open("r+b") as rows:
        rows.seek(20 * at)
        rows.write(bytes(20))
    store = ActivationStore(tmp_path, 5)
    assert (store.find([key(1), key(2), key(3)]) == -1).tolist() == [row == at for row in range(3)]
    assert store.damaged == 1
    store.append([key(at + 1)], row(at + 1)[None])
    for reader in (store, ActivationStore(tmp_path, 5)):
        found = reader.find([key(1), key(2), key(3)])
        assert reader.rows[found, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("file", ["rows.f32", "sums.bin", "keys.bin"])
def test_rows_that_were_cut_off_a_file_are_not_found(tmp_path: Path, file: str) -> None:
    fill(tmp_path, [1, 2, 3])
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert ActivationStore(tmp_path, 5).find([key(1), key(2), key(3)]).tolist() == [0, -1, -1]


def test_a_file_of_zeros_holds_no_rows(tmp_path: Path) -> None:
    fill(tmp_path, [1, 2, 3])
    for file in ("rows.f32", "sums.bin", "keys.bin"):
        (tmp_path / file).write_bytes(bytes((tmp_path / file).stat().st_size))
    assert ActivationStore(tmp_path, 5).find([key(1), key(2), key(3)]).tolist() == [-1, -1, -1]


def test_reading_writes_nothing(tmp_path: Path) -> None:
    assert ActivationStore(tmp_path / "cache", 5).find([key(1)]).tolist() == [-1]
    assert not (tmp_path / "cache").exists()


def test_rows_of_another_width_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 4\); 1 keys need \(1, 5\)"):
        ActivationStore(tmp_path, 5).append([key(1)], row(1, 4)[None])


def test_rows_stay_on_disk(tmp_path: Path) -> None:
    count, width = 200_000, 2560
    keys = np.random.default_rng(0).bytes(32 * count)
    (tmp_path / "keys.bin").write_bytes(keys)
    with (tmp_path / "rows.f32").open("wb") as rows:
        rows.truncate(4 * width * count)  # 2 GB as a sparse file
    np.full(count, zlib.crc32(bytes(4 * width)), np.uint32).tofile(tmp_path / "sums.bin")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    store = ActivationStore(tmp_path, width)
    assert len(store) == count
    wanted = np.random.default_rng(1).integers(0, count, 5000)
    found = store.find([keys[32 * row : 32 * row + 32] for row in wanted])
    assert np.array_equal(found, wanted)
    assert store.rows[found[:1000]].shape == (1000, width)
    assert resident() - before < 100e6
