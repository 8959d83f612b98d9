"""Trackers' own stores, read back."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BLOCK = 32_768
"""Bytes of a block of W&B's log, which has the format of LevelDB's: records do not begin in its last six."""


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips tests where a tracker's package is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: pip install 'pawserve[mlflow,wandb]'")


@dataclass
class WandbFile:
    """What a run's file of W&B holds."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)


def read_wandb(path: Path) -> WandbFile:
    """Read a run's file with the protocol buffers of the package `wandb`."""
    found = WandbFile()
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        content = getattr(record, kind)
        if kind == "run":
            found.run = content
            found.config |= {each.key: json.loads(each.value_json) for each in content.config.update}
        elif kind == "history":
            found.history.append({each.nested_key[0]: json.loads(each.value_json) for each in content.item})
        elif kind == "summary":
            found.summary |= {each.key: json.loads(each.value_json) for each in content.update if each.key}
        elif kind == "artifact":
            found.artifacts += [each.path for each in content.manifest.contents]
    return found


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    content, at, joined = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        joined += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(joined)
            joined = b""
