"""The model card of a bundle: what the Hugging Face Hub's library reads from it."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.cards.licenses import KNOWN, card_license
from export.cards.model_card import render_card
from export.options import CardOptions
from serving.bundle.manifest import Manifest, open_bundle
from serving.statistics.class_report import class_report
from serving.statistics.confusion import ConfusionMatrix
from tests.support.bundles import write_bundle
from tests.support.runs import run_of
from training.recipes.recipe import Recipe
from training.runs.run import Run

huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface-hub is not installed")

ODD = ("<b>cats</b> | dogs", "`mice`\n# big")


def bundle_and_run(folder: Path, classes: tuple[str, ...], each: int = 4) -> tuple[Manifest, Run]:
    """A manifest and the run that it was exported from."""
    names = classes if len(classes) > 1 else (*classes, "other")
    accuracy = {"value": 0.75, "lower": 0.6, "upper": 0.9}
    manifest = open_bundle(write_bundle(folder, metrics={"accuracy": accuracy, "nll": accuracy, "n": 40})).manifest
    labels = np.repeat(np.arange(len(names)), each)
    predicted = labels.copy()
    predicted[::each] = 0
    report = class_report(ConfusionMatrix.from_pairs(names, labels, predicted))
    assert report is not None
    data = {"path": "/secret/home/me/pets_2024", "train": 2 * len(names), "valid": len(labels), "checks": None}
    run = folder / "run"
    run.mkdir()
    Recipe(arch="resnet34", weights="/secret/home/other-run").save(run / "recipe.yaml")
    lines = [{"path": f"{k}.jpg", "label": k % len(names), "sha256": "00" * 32} for k in range(2 * len(names))]
    (run / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest, run_of(run, data, classes=names, class_report=report.to_json(), seconds={"total": 12.3})


@pytest.mark.parametrize("license_", ["cc-by-3.0", "CC-BY-NC-ND-4.0", "openrail++"])
def test_identifiers_of_the_hub_are_the_license_itself(tmp_path: Path, license_: str) -> None:
    manifest, run = bundle_and_run(tmp_path, ("cats", "dogs"))
    data = huggingface_hub.ModelCard(render_card(manifest, run, CardOptions(license=license_))).data
    assert (data.license, data.license_name) == (license_.lower(), None)


def test_the_hub_reads_results_license_and_task(tmp_path: Path) -> None:
    manifest, run = bundle_and_run(tmp_path, ("cats", "dogs"))
    text = render_card(manifest, run, CardOptions(license="Apache-2.0", intended_use="Sorting holiday photos."))
    data = huggingface_hub.ModelCard(text).data
    assert (data.license, data.pipeline_tag, data.library_name) == ("apache-2.0", "image-classification", "onnx")
    assert manifest.arch in data.tags
    results = {result.metric_type: result for result in data.eval_results}
    assert results["accuracy"].metric_value == 0.75
    assert results["f1"].metric_value == pytest.approx(run.class_report.macro.f1, abs=1e-6)
    assert {result.task_type for result in data.eval_results} == {"image-classification"}
    assert {result.dataset_name for result in data.eval_results} == {"pets_2024"}
    assert set(data.metrics) == set(results)
    assert "Sorting holiday photos." in text
    assert "weights: other-run" in text
    assert "/secret" not in text  # a path of the machine is nobody else's business
    assert "| cats | 2 | 4 |" in text
    again = huggingface_hub.ModelCard(
        f"---\n{data.to_yaml()}\n---\n"
    )  # what the library itself would write is the same
    assert again.data.to_dict() == data.to_dict()


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    manifest, run = bundle_and_run(tmp_path, ("cats", "dogs"))
    (run.folder / "training.jsonl").unlink()
    text = render_card(manifest, run, CardOptions())
    assert huggingface_hub.ModelCard(text).data.license == "unknown"
    assert "| cats | Not recorded. | 4 |" in text
    assert "The author has not stated what it is for." in text
    assert "their licence: not recorded." in text
    assert "| Brier score | Not recorded. |  |" in text
    assert "Fewer than 30 validation images, so scores that say little: cats or dogs." in text


def test_a_license_that_the_hub_does_not_list_has_its_own_name(tmp_path: Path) -> None:
    manifest, run = bundle_and_run(tmp_path, ("cats", "dogs"))
    text = render_card(manifest, run, CardOptions(license="Our Licence: 2.0 #internal"))
    data = huggingface_hub.ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "Our Licence: 2.0 #internal")
    assert card_license(text) == "Our Licence: 2.0 #internal"
    assert {"apache-2.0", "mit", "cc-by-4.0", "unknown"} <= KNOWN


def test_class_names_are_no_markup(tmp_path: Path) -> None:
    manifest, run = bundle_and_run(tmp_path, ODD)
    text = render_card(manifest, run, CardOptions())
    huggingface_hub.ModelCard(text)
    assert "<b>" not in text.replace("\\<b\\>", "")
    row = next(line for line in text.splitlines() if "cats" in line and line.startswith("|"))
    assert row.replace("\\|", "").count("|") == 4  # three cells
    assert "\n# big" not in text


@pytest.mark.slow
def test_a_card_of_ten_thousand_classes_stays_short(tmp_path: Path) -> None:
    manifest, run = bundle_and_run(tmp_path, tuple(f"class {k}" for k in range(10_000)), each=1)
    text = render_card(manifest, run, CardOptions())
    assert len(text) < 30_000
    assert "And 9,950 more classes." in text
    assert "the 20 classes with the lowest F1" in text


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ("# Edited, without front matter", "no front matter that can be read"),
        ("---\nlicense: [\n---\n", "no front matter that can be read"),
        ("---\ntags: [a]\n---\n", "unknown"),
        ("---\nlicense: mit\n---\n", "mit"),
    ],
)
def test_the_license_of_an_edited_card_is_shown_as_far_as_it_can_be_read(card: str, shown: str) -> None:
    assert card_license(card) == shown
