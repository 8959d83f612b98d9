"""Finished runs without files."""

from pathlib import Path
from typing import Any

import numpy as np

from serving.statistics.class_report import class_report
from serving.statistics.confusion import ConfusionMatrix
from training.runs.run import Run, parse_run

REPORT = class_report(ConfusionMatrix.from_pairs(("cats", "dogs"), np.array([0, 1]), np.array([0, 1])))
FACTS = {
    "arch": "resnet34",
    "classes": ["cats", "dogs"],
    "temperature": 1.0,
    "temperatures": {"1": 1.0},
    "recommended_views": 1,
    "class_report": REPORT and REPORT.to_json(),
    "preprocess": {"resize": 256, "crop": 224},
}


def run_of(folder: Path, data: dict[str, Any], **facts: Any) -> Run:
    """A run with the given facts, and those that do not matter to a test."""
    return parse_run(folder, FACTS | {"data": {"limits": {}} | data} | facts)
