"""Measurements of tests, printed at the end and written to the file that PAWSERVE_REPORT names."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPORT = "PAWSERVE_REPORT"

_rows: list[dict[str, object]] = []


@pytest.fixture(scope="session")
def measured() -> Iterator[list[dict[str, object]]]:
    """Rows that tests add: `what`, then any figures."""
    yield _rows
    if (path := os.environ.get(REPORT)) and _rows:
        Path(path).write_text(json.dumps(_rows, indent=2) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for row in _rows:
        figures = ", ".join(f"{name} {value}" for name, value in row.items() if name != "what")
        terminalreporter.write_line(f"{row['what']}: {figures}")
