"""An append-only, memory-mapped store of rows on disk, such as activations.

A folder holds `rows.f32` (float32 rows, one after another) and `keys.bin` (32 bytes a row, in the same order). Rows
are written and synced before their keys, so after a crash there may only be rows without keys, which the next
append overwrites. Several processes may append, one at a time, by a lock file.
"""

import fcntl
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32


class ActivationStore:
    """Rows of float32 `[width]`, found by 32-byte keys; resident memory is 16 bytes a row."""

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.width = width
        self._rows_path = folder / "rows.f32"
        self._keys_path = folder / "keys.bin"
        self._lock_path = folder / "lock"
        for path in (self._rows_path, self._keys_path):
            path.touch()
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
        """The row of each key, int64 `[len(keys)]`; -1 where there is none."""
        if not keys or not len(self):
            return np.full(len(keys), -1, np.int64)
        wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, KEY_BYTES // 8)
        at = np.minimum(np.searchsorted(self._sorted, wanted[:, 0]), len(self) - 1)
        rows = self._order[at]
        found: NDArray[np.bool_] = (self._keys[rows] == wanted).all(1)
        return np.where(found, rows, -1)

    def append(self, keys: list[bytes], rows: NDArray[np.float32]) -> None:
        """Add rows and sync them to the disk.

        Raises:
            ValueError: if their shape is not `[len(keys), width]`.
            OSError: if they cannot be written; the store is then unchanged.
        """
        if rows.shape != (len(keys), self.width):
            raise ValueError(f"rows have shape {rows.shape}; {len(keys)} keys need ({len(keys)}, {self.width})")
        with self._lock_path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes
            count = self._count()
            for path, at, content in (
                (self._rows_path, count * 4 * self.width, np.ascontiguousarray(rows, np.float32).tobytes()),
                (self._keys_path, count * KEY_BYTES, b"".join(keys)),
            ):
                try:
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
        """Complete rows with keys."""
        rows = self._rows_path.stat().st_size // (4 * self.width)
        return min(rows, self._keys_path.stat().st_size // KEY_BYTES)

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
