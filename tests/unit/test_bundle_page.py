"""What `export inspect` and bundle.html show of bundles that other programs wrote."""

from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.cards.page import render_page
from serving.bundle.manifest import open_bundle
from serving.statistics.class_report import class_report
from serving.statistics.confusion import ConfusionMatrix
from tests.support.bundles import write_bundle
from tests.support.html import assert_valid

REPORT = class_report(ConfusionMatrix.from_pairs(("<blue>", "green", "red"), [0, 1, 2, 2], [0, 1, 2, 0]))


@pytest.mark.parametrize("metrics", [{}, {"accuracy": {"value": 0.9, "lower": 0.8, "upper": 0.95}, "n": 10}])
def test_figures_that_a_bundle_does_not_have_are_shown_as_not_recorded(
    metrics: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path, metrics=metrics)
    assert main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("not recorded") == 5 + (not metrics)
    assert ("90.00% of 10 images" in shown) == bool(metrics)
    assert_valid(render_page(open_bundle(bundle).manifest, REPORT))
    assert render_page(open_bundle(bundle).manifest).count("not recorded") == 5 + (not metrics)
