"""Several processes that use one store of activations."""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np

from training.features.store import ActivationStore

WIDTH = 5


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def append(folder: Path, numbers: range) -> None:
    store = ActivationStore(folder, WIDTH)
    for number in numbers:
        store.append([key(number)], np.full((1, WIDTH), number, np.float32))


def test_rows_that_two_processes_append_at_once_are_all_kept(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append, args=(tmp_path, numbers)) for numbers in (range(40), range(40, 80))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = ActivationStore(tmp_path, WIDTH)
    rows = store.find([key(number) for number in range(80)])
    assert store.rows[rows, 0].tolist() == list(range(80))
