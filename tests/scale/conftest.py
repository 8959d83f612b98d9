"""Tests of training with several processes run under `make scale-check` and are skipped otherwise."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PAWSERVE_SCALE"):
        return
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="starts dozens of processes: make scale-check"))
