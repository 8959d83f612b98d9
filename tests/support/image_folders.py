"""Folders of files that stand for images."""

import os
from pathlib import Path

from training.data.image_files import read_images
from training.data.images import Split


def write(folder: Path, name: str, content: bytes = b"") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content or os.fsencode(name))


def read(folder: Path, *, fraction: float = 0.2, seed: int = 0) -> Split:
    return read_images(folder).split(valid_fraction=fraction, seed=seed)
