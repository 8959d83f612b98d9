"""The report: self-contained, valid identifiers, light and dark, and of a bounded size."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.image.preprocess import Preprocess
from serving.statistics.calibration import bin_predictions
from training.data.images import LabelledImage
from training.evaluation.evaluation import Evaluation, evaluate
from training.networks.model import Body, Classifier, Head, describe_backbone
from training.reports.galleries import choose_galleries
from training.reports.grad_cam import class_map, overlays
from training.reports.plots import plot_calibration, plot_confusion
from training.reports.report import ReportContents, render_report
from training.samples.drawing import draw


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> LabelledImage:
    path = tmp_path_factory.mktemp("images") / "<one> & only.jpg"
    draw("cat", np.random.default_rng(0)).save(path, quality=95)
    return LabelledImage(path, 0, hashlib.sha256(path.read_bytes()).digest())


def evaluated(classes: int, each: int) -> Evaluation:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    logits = rng.normal(size=(1, len(labels), classes)).astype(np.float32)
    logits[0, np.arange(len(labels)), labels] += 2.5
    return evaluate(logits, labels, tuple(f"class {k} <b>" for k in range(classes)), {1: 1.5})


def page(picture: LabelledImage, classes: int, each: int) -> str:
    evaluation = evaluated(classes, each)
    confidence = evaluation.probabilities_NK.max(1).astype(np.float64)
    bins = bin_predictions(confidence, evaluation.probabilities_NK.argmax(1) == evaluation.labels_N)
    return render_report(
        ReportContents(
            title="<title> & more",
            cards=[("classes", str(classes), "")],
            evaluation=evaluation,
            images=[picture] * len(evaluation.labels_N),
            galleries=choose_galleries(
                evaluation.probabilities_NK, evaluation.labels_N, evaluation.confusion.classes, seed=0
            ),
            plots={
                "confusion": ("Confusion matrix", plot_confusion(evaluation.confusion)),
                "calibration": ("Calibration", plot_calibration(bins, bins)),
            },
            overlays=[],
            tables={},
            facts={"seed": "0"},
            command="python -m training fit --data 'my <images>'",
            skipped=[],
            shared=[],
            contradictory=[],
            checks=None,
            data=Path("/data"),
        ),
        lambda done, total: None,
    )


@pytest.mark.parametrize(("classes", "each"), [(2, 30), (12, 20), (1000, 2)])
def test_a_page_is_self_contained_and_below_5_mb(picture: LabelledImage, classes: int, each: int) -> None:
    text = page(picture, classes, each)
    assert len(text.encode()) < 5_000_000
    assert "http" not in text
    assert "<script" not in text
    assert "class 0 <b>" not in text
    assert "<pre>python -m training fit --data &#x27;my &lt;images&gt;&#x27;</pre>" in text
    identifiers = re.findall(r' id="([^"]*)"', text)
    assert len(identifiers) == len(set(identifiers))
    targets = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets <= set(identifiers)


def test_plots_take_their_colours_from_the_page(picture: LabelledImage) -> None:
    text = page(picture, 2, 30)
    assert "prefers-color-scheme:dark" in text
    drawing = text[text.index("<svg") : text.rindex("</svg>")]
    assert set(re.findall(r": (#[0-9a-f]{6})", drawing)) <= {"#ffffff"}  # of counts on full shades
    assert "var(--blue)" in drawing


def test_the_map_marks_what_the_head_uses() -> None:
    torch.manual_seed(0)
    backbone = describe_backbone("test_resnet")
    body = Body(backbone)
    network = Classifier(body, Head(2 * body.network.num_features, 2, (0.0, 0.0), width=16)).eval()
    view = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    found = class_map(network, view)
    assert found.shape == tuple(body.feature_maps(torch.from_numpy(view[None])).shape[2:])
    assert 0 <= found.min() <= found.max() <= 1


def test_an_image_that_is_gone_has_no_map(picture: LabelledImage) -> None:
    backbone = describe_backbone("test_resnet")
    body = Body(backbone)
    network = Classifier(body, Head(2 * body.network.num_features, 2, width=16)).eval()
    gone = LabelledImage(Path("gone.jpg"), 0)
    one, other = overlays(network, [picture, gone], Preprocess(resize=64, crop=64))
    assert one is not None
    assert one.size == (64, 64)
    assert other is None
