"""An append-only, memory-mapped store of rows on disk, such as activations.

A folder holds `rows.f32` (float32 rows, one after another), `sums.bin` (the CRC-32 of each row) and `keys.bin` (32
bytes a row), in the same order. Keys are written last, each file synced before the next, so after a crash there may
only be rows without keys, which the next append overwrites. Several processes may append, one at a time, by a lock
file. Nothing is written before the first append, so a store on a read-only disk can be read.
"""

import fcntl
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32


class ActivationStore:
    """Rows of float32 `[width]`, found by 32-byte keys; resident memory is 18 bytes a row."""

    def __init__(self, folder: Path, width: int) -> None:
        self.width = width
        self.damaged = 0
        """Rows that did not match their checksum when they were looked for."""
        self.folder = folder
        self._rows_path, self._sums_path, self._keys_path = (
            folder / name for name in ("rows.f32", "sums.bin", "keys.bin")
        )
        self._checked = self._sound = np.empty(0, np.bool_)
        self._load()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def rows(self) -> NDArray[np.float32]:
        """All rows, float32 `[n, width]`, memory-mapped and read-only."""
        if not len(self):
            return np.empty((0, self.width), np.float32)
        return np.memmap(self._rows_path, np.float32, "r", shape=(len(self), self.width))

    def find(self, keys: list[bytes]) -> NDArray[np.int64]:
        """The row of each key, int64 `[len(keys)]`; -1 where there is none, or it does not match its checksum."""
        if not keys or not len(self):
            return np.full(len(keys), -1, np.int64)
        wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, KEY_BYTES // 8)
        # the latest of equal keys: a damaged row is appended again
        rows = self._order[np.searchsorted(self._sorted, wanted[:, 0], side="right") - 1]
        found: NDArray[np.bool_] = (self._keys[rows] == wanted).all(1)
        self._check(rows[found])
        return np.where(found & self._sound[rows], rows, -1)

    def append(self, keys: list[bytes], rows: NDArray[np.float32]) -> None:
        """Add rows and sync them to the disk.

        Raises:
            ValueError: if their shape is not `[len(keys), width]`.
            OSError: if they cannot be written; the store is then unchanged.
        """
        if rows.shape != (len(keys), self.width):
            raise ValueError(f"rows have shape {rows.shape}; {len(keys)} keys need ({len(keys)}, {self.width})")
        rows = np.ascontiguousarray(rows, np.float32)
        sums = np.array([zlib.crc32(row) for row in rows], np.uint32)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes
            count = self._count()
            for path, at, content in (
                (self._rows_path, count * 4 * self.width, rows.tobytes()),
                (self._sums_path, count * 4, sums.tobytes()),
                (self._keys_path, count * KEY_BYTES, b"".join(keys)),
            ):
                try:
                    path.touch()
                    with path.open("r+b") as file:
                        file.truncate(at)
                        file.seek(at)
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                except OSError as error:
                    error.filename = str(path)  # the error of a write to a full disk has no file name
                    raise
        self._load()

    def _count(self) -> int:
        """Complete rows with checksums and keys."""
        sizes = ((self._rows_path, 4 * self.width), (self._sums_path, 4), (self._keys_path, KEY_BYTES))
        return min(path.stat().st_size // size if path.exists() else 0 for path, size in sizes)

    def _load(self) -> None:
        count = self._count()
        self._keys: NDArray[np.uint64]
        if count:
            self._keys = np.memmap(self._keys_path, np.uint64, "r", shape=(count, KEY_BYTES // 8))
        else:
            self._keys = np.empty((0, KEY_BYTES // 8), np.uint64)
        first = np.asarray(self._keys[:, 0])
        self._order: NDArray[np.int64] = np.argsort(first, kind="stable").astype(np.int64)
        self._sorted = first[self._order]
        unchecked = np.zeros(max(count - len(self._checked), 0), np.bool_)
        self._checked = np.concatenate([self._checked, unchecked])[:count]
        self._sound = np.concatenate([self._sound, unchecked])[:count]

    def _check(self, rows: NDArray[np.int64]) -> None:
        """Compare rows with their checksums, each once: a power failure or a bad copy may leave zeros in a file."""
        unchecked = np.unique(rows[~self._checked[rows]])
        if not len(unchecked):
            return
        sums = np.fromfile(self._sums_path, np.uint32, len(self))
        size = 4 * self.width
        with self._rows_path.open("rb") as file:  # read, not mapped: mapped pages would count as resident memory
            for row in unchecked.tolist():
                self._sound[row] = zlib.crc32(os.pread(file.fileno(), size, row * size)) == sums[row]
        self._checked[unchecked] = True
        self.damaged += int((~self._sound[unchecked]).sum())
