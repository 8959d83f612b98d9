"""Photos in; a finished run folder out: the whole of `python -m training fit`."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from training.activation_store import ActivationStore
from training.activations import Activations, compute_activations, store_folder
from training.data import Photo, Skipped, Split, read_split, shared_photos
from training.evaluation import Evaluation, evaluate
from training.extract import Extract, cpu_count, onnx_extractor, torch_extractor
from training.files import new_folder, sync_folder, write_whole
from training.galleries import choose_galleries
from training.learner import EpochResult, TrainingError, one_thread, run_head, train_head
from training.metrics import calibration_bins
from training.model import Body, Classifier, Head, count_features, describe_backbone, is_finite
from training.plots import plot_calibration, plot_confusion, plot_losses
from training.progress import progress, say
from training.recipe import Recipe
from training.report import ReportContents, render_report
from training.run import (
    MODEL_FILE,
    RECIPE_FILE,
    RUN_FILE,
    RUN_FORMAT,
    TRAINING_FILE,
    VALIDATION_FILE,
    training_lines,
    validation_lines,
)
from training.versions import versions
from training.weights import fingerprint, load_weights

EXTRACT_BATCH_CPU, EXTRACT_BATCH_GPU = 1, 128
"""Photos in one call of the engine: on a CPU a batch is slower than its rows one by one (its maps leave the cache)."""


class Stopwatch:
    """Seconds by stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)


@dataclass(frozen=True)
class Data:
    """The photos of one fit, with their activations."""

    split: Split
    train: Activations
    valid: Activations
    skipped: list[Skipped]


def fit(data: Path, run: Path, recipe: Recipe, cache: Path) -> Evaluation:
    """Train a classifier and write a run.

    Args:
        data: folder of photos, as `training.data` reads it.
        run: folder to write; a finished run there is kept as NAME.previous once the new one is whole.
        cache: where activations are kept between runs.

    Raises:
        DataError, WeightsError, TrainingError, ValueError: with what to change.
        OSError: if something cannot be written; then nothing is left under the run's name.
    """
    _check_replaceable(run)
    data = data.resolve()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    watch = Stopwatch()
    torch.manual_seed(recipe.seed)
    with new_folder(run.parent, run.name) as folder:
        with watch.stage("read photos"), progress("reading photos") as on_progress:
            split, unreadable = read_split(
                data, valid_fraction=recipe.valid_fraction, seed=recipe.seed, on_progress=on_progress
            )
        say(
            f"{len(split.classes)} classes, {len(split.train):,} photos to train on, {len(split.valid):,} to validate "
            f"on: {_shortened(split.classes)}"
        )
        with watch.stage("load weights"):
            backbone = describe_backbone(recipe.arch)
            body = Body(backbone)
            load_weights(body.network, recipe.arch, recipe.weights)
            weights_sha256 = fingerprint(body.network.state_dict())
        with watch.stage("activations"):
            of_data = _activations(split, unreadable, body, recipe, weights_sha256, cache, device)
        with watch.stage("train head"):
            head, history = _train(of_data, recipe, device, folder)
        with watch.stage("evaluate"):
            logits = run_head(head, of_data.valid, device).numpy()
            evaluation = evaluate(logits, of_data.valid.labels(), split.classes)
        classifier = Classifier(body, head.cpu()).eval()
        with watch.stage("report"):
            _write_report(folder, of_data, evaluation, history, recipe, watch)
        with watch.stage("write"):
            model_sha256 = _write_model(folder, classifier)
            recipe.save(folder / RECIPE_FILE)
            lines = validation_lines(of_data.valid.photos, evaluation.probabilities_NK, data)
            (folder / VALIDATION_FILE).write_text("".join(lines), encoding="utf-8")
            listed = training_lines(of_data.train.photos, data)
            (folder / TRAINING_FILE).write_text("".join(listed), encoding="utf-8")
        facts = {
            "format": RUN_FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "arch": recipe.arch,
            "classes": list(split.classes),
            "metrics": evaluation.metrics.to_json(),
            "metrics_uncalibrated": evaluation.uncalibrated.to_json(),
            "confusion_matrix": evaluation.confusion.counts_KK.tolist(),
            "temperature": evaluation.temperature,
            "preprocess": asdict(backbone.preprocess),
            "mean": backbone.mean,
            "std": backbone.std,
            "data": {
                "path": str(data),
                "train": len(of_data.train.photos),
                "valid": len(of_data.valid.photos),
                "skipped": [{"path": str(skipped.path), "reason": skipped.reason} for skipped in of_data.skipped],
                "in_train_and_valid": len(shared_photos(split)),
            },
            "activations": {
                "computed": of_data.train.computed + of_data.valid.computed,
                "reused": len(of_data.train.photos)
                + len(of_data.valid.photos)
                - of_data.train.computed
                - of_data.valid.computed,
            },
            "seconds": watch.seconds | {"total": round(sum(watch.seconds.values()), 3)},
            "fingerprints": {
                "recipe": recipe.fingerprint(),
                "data": split.fingerprint(),
                "pretrained": weights_sha256,
                "model": model_sha256,
            },
            "device": str(device),
            "versions": versions(),
        }
        write_whole(folder / RUN_FILE, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
        sync_folder(folder)
        _put_in_place(folder, run)
    return evaluation


def _activations(
    split: Split,
    unreadable: list[Skipped],
    body: Body,
    recipe: Recipe,
    weights_sha256: str,
    cache: Path,
    device: torch.device,
) -> Data:
    preprocess = describe_backbone(recipe.arch).preprocess
    width = count_features(body, preprocess.crop)
    place = store_folder(cache, weights=weights_sha256, preprocess=preprocess)
    store = ActivationStore(place, width)

    def make_extract() -> Extract:
        if device.type == "cuda":
            return torch_extractor(body, device)
        say("preparing the network for ONNX Runtime")
        return onnx_extractor(body, preprocess.crop, place / "body.onnx")

    def compute(title: str, photos: list[Photo], views: int) -> Activations:
        with progress(title) as on_progress:
            return compute_activations(
                photos,
                store=store,
                make_extract=make_extract,
                preprocess=preprocess,
                views=views,
                workers=cpu_count(),
                batch_size=EXTRACT_BATCH_GPU if device.type == "cuda" else EXTRACT_BATCH_CPU,
                on_progress=on_progress,
            )

    train = compute("activations, training", split.train, recipe.train_views)
    valid = compute("activations, validation", split.valid, 1)
    skipped = unreadable + train.skipped + valid.skipped
    if skipped:
        say(f"{len(skipped):,} files are no photos that can be read, and are left out:")
        for file in skipped[:10]:
            say(f"  {file.path}: {file.reason}")
    Split(split.classes, train.photos, valid.photos).check()
    say(
        f"activations: {train.computed + valid.computed:,} computed, "
        f"{len(train.photos) + len(valid.photos) - train.computed - valid.computed:,} reused from {place}"
    )
    return Data(split, train, valid, skipped)


def _train(data: Data, recipe: Recipe, device: torch.device, folder: Path) -> tuple[Head, list[EpochResult]]:
    head = Head(data.train.rows.shape[1], len(data.split.classes), recipe.dropout)
    history: list[EpochResult] = []
    with (folder / "history.jsonl").open("w", encoding="utf-8") as lines:

        def on_epoch(result: EpochResult) -> None:
            history.append(result)
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()
            say(
                f"epoch {result.epoch} of {recipe.epochs}: loss {result.train_loss:.4f} in training, "
                f"{result.valid_loss:.4f} in validation; accuracy {100 * result.valid_accuracy:.2f}%; "
                f"{result.seconds:.2f} s"
            )

        with one_thread():
            train_head(
                head,
                train=data.train,
                valid=data.valid,
                recipe=recipe,
                device=device,
                on_epoch=on_epoch,
                clock=time.monotonic,
            )
    return head, history


def _write_report(
    folder: Path, data: Data, evaluation: Evaluation, history: list[EpochResult], recipe: Recipe, watch: Stopwatch
) -> None:
    confidence = evaluation.probabilities_NK.max(1).astype("float64")
    right = evaluation.probabilities_NK.argmax(1) == evaluation.labels_N
    plots = {
        "Losses and accuracy by epoch": plot_losses(history),
        "Confusion matrix of the validation photos": plot_confusion(evaluation.confusion),
        "Calibration: how sure, and how often right": plot_calibration(calibration_bins(confidence, right)),
    }
    (folder / "plots").mkdir()
    for name, png in zip(("losses", "confusion", "calibration"), plots.values(), strict=True):
        (folder / "plots" / f"{name}.png").write_bytes(png)
    galleries = choose_galleries(
        evaluation.probabilities_NK, evaluation.labels_N, evaluation.confusion.classes, seed=recipe.seed
    )
    contents = ReportContents(
        title=f"{recipe.arch}: {_shortened(data.split.classes)}",
        evaluation=evaluation,
        photos=data.valid.photos,
        galleries=galleries,
        plots=plots,
        facts={
            "photos": f"{len(data.train.photos):,} for training, {len(data.valid.photos):,} for validation",
            "recipe": ", ".join(f"{name} {value}" for name, value in asdict(recipe).items()),
            **{f"seconds: {name}": f"{seconds:.1f}" for name, seconds in watch.seconds.items()},
            "versions": ", ".join(f"{name} {release}" for name, release in versions().items()),
        },
        skipped=data.skipped,
        shared=shared_photos(data.split),
    )
    with progress("report") as on_progress:
        (folder / "report.html").write_text(render_report(contents, on_progress), encoding="utf-8")


def _write_model(folder: Path, classifier: Classifier) -> str:
    state: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    if not is_finite(state):
        raise TrainingError("the trained weights are no longer numbers: lower --lr (a tenth is a good next try)")
    content = safetensors.torch.save(state)
    (folder / MODEL_FILE).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _check_replaceable(run: Path) -> None:
    if run.is_dir():
        if not (run / RUN_FILE).exists() and any(run.iterdir()):
            raise ValueError(f"--run {run} holds other files than a run's; give a new or an empty folder")
    elif run.exists():
        raise ValueError(f"--run {run} is a file; give a new folder")


def _put_in_place(folder: Path, run: Path) -> None:
    if (run / RUN_FILE).exists():
        previous = run.with_name(f"{run.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        run.rename(previous)
        say(f"the run that was there is kept as {previous}")
    os.rename(folder, run)


def _shortened(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:8]) + (f" and {len(classes) - 8:,} more" if len(classes) > 8 else "")
