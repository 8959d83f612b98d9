"""The report: self-contained, valid identifiers, light and dark, and of a bounded size."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serving.image.folders import Skipped
from serving.image.preprocess import Preprocess
from serving.statistics.calibration import bin_predictions
from tests.support.html import assert_valid
from training.checks.data_checks import DataChecks
from training.checks.duplicates import DuplicateGroup
from training.checks.image_facts import RECORD
from training.checks.suspects import OutOfFold, Suspect
from training.data.images import LabelledImage
from training.evaluation.evaluation import Evaluation, evaluate
from training.networks.model import Body, Classifier, Head, describe_backbone
from training.reports.data_page import data_page
from training.reports.galleries import choose_galleries
from training.reports.grad_cam import class_map, overlays
from training.reports.page import table
from training.reports.plots import plot_calibration, plot_confusion
from training.reports.report import ReportContents, render_report
from training.reports.tiles import jpeg_of
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


def checked(picture: LabelledImage, classes: int, each: int) -> DataChecks:
    """Checks that found as many suspects, groups and odd images as a page shows, and more."""
    labels = np.repeat(np.arange(classes), each)
    images = [replace(picture, label=int(label)) for label in labels]
    facts_N = np.zeros(len(images), RECORD)
    facts_N["width"], facts_N["height"], facts_N["bytes"], facts_N["blur"] = 640, 480, 50_000, 0.9
    facts_N["dark"], facts_N["bright"], facts_N["mean"] = 10, 200, 120
    suspects = [Suspect(at, (int(labels[at]) + 1) % classes, 0.01, 0.9, at % 2 == 0) for at in range(100)]
    groups = [DuplicateGroup([at, at + 100, at + 110], 0.97) for at in range(20)]
    names = tuple(f"class {k} <b>" for k in range(classes))
    skipped = [Skipped(Path(f"/data/<{k}>.jpg"), "cannot be decoded") for k in range(40)]
    correct, out_of_fold = np.ones(len(images) - 100, bool), OutOfFold(suspects, labels)
    data = picture.path.parent
    return DataChecks(data, names, images, 100, facts_N, out_of_fold, groups, skipped, correct)


def page(picture: LabelledImage, classes: int, each: int, checks: DataChecks | None = None) -> str:
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
            overlays=[(at, jpeg_of(Image.open(picture.path), 320)) for at in range(16)],
            facts={"seed": "0"},
            command="python -m training fit --data 'my <images>'",
            skipped=[],
            checks=checks,
        ),
        lambda done, total: None,
    )


@pytest.mark.parametrize(
    ("classes", "each"),
    [(2, 100), pytest.param(12, 20, marks=pytest.mark.slow), pytest.param(1000, 2, marks=pytest.mark.slow)],
)
def test_a_page_is_self_contained_valid_and_below_5_mb_with_all_its_sections(
    picture: LabelledImage, classes: int, each: int
) -> None:
    text = page(picture, classes, each, checked(picture, classes, each))
    assert_valid(text)
    assert len(text.encode()) < 5_000_000
    for section in (
        "Label suspects",
        "Near duplicates",
        "Blurred images, the most extreme first",
        "What the network sees",
    ):
        assert section in text
    assert "class 0 <b>" not in text
    assert "<pre>python -m training fit --data &#x27;my &lt;images&gt;&#x27;</pre>" in text


@pytest.mark.parametrize(("classes", "each"), [(2, 100), (1000, 2)])
def test_the_page_of_the_data_check_is_valid(picture: LabelledImage, classes: int, each: int) -> None:
    text = data_page(checked(picture, classes, each), "Data check: <b>")
    assert_valid(text)
    assert len(text.encode()) < 5_000_000
    assert "20 groups of images that are copies" in text
    assert "40 files" in text


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


def test_columns_of_numbers_are_aligned_to_the_right_and_columns_of_words_are_not() -> None:
    rows = [["class", "", "change", "loss", "p", "trainable"], ["a", "b", "+1 -2", "0.5 (0.4 to 0.6)", "1.0e-05", "no"]]
    cells = re.findall(r"<td( class=\"n\")?", table(rows))
    assert [bool(cell) for cell in cells] == [False, False, True, True, True, False]
