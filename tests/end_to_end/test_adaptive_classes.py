"""A run of more classes than it records probabilities of: its report, and the threshold of adaptive views."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.bundle.manifest import open_bundle
from serving.engine.onnx import load_graph
from tests.support.commands import run_here
from training.runs.run import open_run

pytestmark = pytest.mark.slow

CLASSES = 200


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes that differ in the colours of two halves; neighbouring classes look much alike."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("colours")
    for label in range(CLASSES):
        halves = [colorsys.hsv_to_rgb(hue, 0.9, 0.9) for hue in (label % 16 / 16, label // 16 / 16)]
        base = np.repeat(255 * np.array(halves), 24, 0)[None].repeat(48, 0)
        for part, count in (("train", 2), ("valid", 1)):
            place = folder / part / f"{label:04d}"
            place.mkdir(parents=True)
            for number in range(count):
                noisy = np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(place / f"{number}.png")
    return folder


def test_the_manifest_has_the_views_that_the_threshold_costs(colours: Path, tmp_path: Path) -> None:
    fit = ("training", "fit", "--data", colours, "--run", tmp_path / "run", "--cache", tmp_path / "cache")
    fitted = run_here(*fit, "--arch", "test_resnet", "--weights", "none", "--sizes", 32)
    assert fitted.returncode == 0, fitted.stderr
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f'<details class="long"><summary>{CLASSES:,} rows</summary>' in report
    exported = run_here("export", "bundle", "--run", tmp_path / "run", "--models", tmp_path, "--name", "colours")
    assert exported.returncode == 0, exported.stderr
    bundle = open_bundle(tmp_path / "colours" / "1")
    adaptive = bundle.manifest.adaptive
    compute = load_graph(bundle.read(bundle.artifact("fp32")))
    images, trained_NK = open_run(tmp_path / "run").validation(None)
    assert np.isnan(trained_NK).any()
    first_NK = np.concatenate([compute(image.views(bundle.manifest.preprocess)) for image in images])
    below_N = first_NK.max(1) < adaptive["threshold"]
    assert adaptive["photos"] == CLASSES
    assert adaptive["mean_views"] == pytest.approx(1 + (adaptive["views"] - 1) * below_N.mean())
