"""Files are written whole or not at all."""

import errno
import os
import stat
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from serving.system.files import filling, replacing, write_atomically


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.txt"


def test_text_and_bytes_replace_the_earlier_contents(path: Path) -> None:
    write_atomically(path, "Käuzchen\n")
    assert path.read_bytes() == "Käuzchen\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == [path.name]


def test_a_block_that_fails_leaves_the_earlier_contents_and_no_temporary_file(path: Path) -> None:
    path.write_text("earlier")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "earlier"
    assert os.listdir(path.parent) == [path.name]


def test_errors_name_the_file_and_not_the_temporary_one(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_atomically(path, "text")
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    with pytest.raises(FileNotFoundError, match="missing/results.txt"):
        write_atomically(path.parent / "missing" / path.name, "text")
    with pytest.raises(OSError, match="results.txt") as full, replacing(path.parent / "new-results.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert full.value.errno == errno.ENOSPC
    assert os.listdir(path.parent) == [path.name]


def test_errors_name_the_folder_and_not_the_temporary_one(path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised, filling(path) as folder:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "train" / "1.jpg"))
    assert raised.value.filename == str(path)


def test_the_mode_is_set_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(path, "text", mode=0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        write_atomically(path, "text")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_of_several_exclusive_writers_one_succeeds(path: Path) -> None:
    def write(number: int) -> int | None:
        try:
            write_atomically(path, str(number), exclusive=True)
        except FileExistsError:
            return None
        return number

    with ThreadPool(8) as pool:
        written = [number for number in pool.map(write, range(32)) if number is not None]
    assert [path.read_text()] == [str(number) for number in written]
    assert os.listdir(path.parent) == [path.name]
