"""Images in; a finished run folder out: the whole of `python -m training fit`."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.system.files import write_atomically
from training.console import say
from training.data.images import Skipped, shared_images
from training.distributed import ProcessGroup, joined_processes
from training.evaluation.evaluation import Evaluation, confusion_facts, evaluate
from training.features.activations import Activations
from training.features.lookup import resized
from training.features.views import view_logits
from training.fitting.history import History, recorded
from training.fitting.session import FitSession, labels_of, set_up
from training.fitting.steps import run_steps
from training.hardware import Hardware, choose_hardware
from training.recipes.describe import describe_plan
from training.recipes.recipe import Recipe
from training.reports.writer import step_facts, write_model, write_report
from training.runs.folder import building, partial_folder
from training.runs.run import (
    RECIPE_FILE,
    RUN_FILE,
    RUN_FORMAT,
    TRAINING_FILE,
    VALIDATION_FILE,
    training_lines,
    validation_lines,
)
from training.versions import versions

CHECKPOINT_EVERY_S = 20.0


class Stopwatch:
    """Seconds by stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)


def fit(
    data: Path,
    run: Path,
    recipe: Recipe,
    cache: Path,
    *,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> Evaluation:
    """Train a classifier and write a run; every process that torchrun started calls this.

    Args:
        data: folder of images, as `training.data.images` reads it.
        run: folder to write; a finished run there is kept as NAME.previous once the new one is whole.
        cache: where activations are kept between runs.
        resume: go on from the checkpoint of a run that did not finish.
        checkpoint_every_s: seconds between checkpoints, which are written at the ends of epochs.

    Raises:
        DataError, WeightsError, TrainingError, ResumeError, ValueError: with what to change.
        OSError: if something cannot be written; what was done stays in `.NAME.partial` if it can be gone on from.
    """
    hardware = choose_hardware()
    with joined_processes(hardware.device) as processes:
        if recipe.batch_size < 2 * processes.count:
            raise ValueError(
                f"batch_size is {recipe.batch_size} for {processes.count} processes together; each needs two images of "
                f"a batch: use at least --batch-size {2 * processes.count}"
            )
        for line in describe_plan(recipe):
            say(line)
        place: AbstractContextManager[Path] = (
            building(run, resume=resume) if processes.first else nullcontext(partial_folder(run))
        )
        with place as folder:
            processes.wait()
            return _fit(data.resolve(), folder, recipe, cache, hardware, processes, resume, checkpoint_every_s)


def _fit(
    data: Path,
    folder: Path,
    recipe: Recipe,
    cache: Path,
    hardware: Hardware,
    processes: ProcessGroup,
    resume: bool,
    checkpoint_every_s: float,
) -> Evaluation:
    watch = Stopwatch()
    setting, skipped, activations = set_up(
        data,
        recipe,
        cache,
        folder=folder,
        hardware=hardware,
        processes=processes,
        checkpoint_every_s=checkpoint_every_s,
        stage=watch.stage,
    )
    split = setting.split
    reached = setting.checkpoints.load(hardware.device)
    if resume:
        say(f"going on after {len(reached.history)} of {recipe.epochs} epochs")
    recording: AbstractContextManager[History] = (
        recorded(folder, reached.history) if processes.first else nullcontext(lambda result: None)
    )
    with watch.stage("train"), recording as record:
        fitted = run_steps(setting, reached, record)
    network = fitted.network.to("cpu").eval()
    last = recipe.sizes[-1] if recipe.sizes else None
    with watch.stage("evaluate"):
        logits_VNK, _, _ = view_logits(
            network, split.valid, views=recipe.views, lookup=lambda member: setting.lookup(member, last)
        )
        processes.wait()  # until all have read what the first is going to remove
        evaluation = evaluate(logits_VNK, labels_of(split.valid), split.classes)
        steps = step_facts(fitted)
    if processes.first:
        with watch.stage("report"):
            write_report(setting, fitted, split, evaluation, steps, skipped, watch.seconds)
        with watch.stage("write"):
            model_sha256 = write_model(folder, network)
            recipe.save(folder / RECIPE_FILE)
            lines = validation_lines(split.valid, evaluation.probabilities_NK, data)
            (folder / VALIDATION_FILE).write_text("".join(lines), encoding="utf-8")
            listed = training_lines(split.train, data)
            (folder / TRAINING_FILE).write_text("".join(listed), encoding="utf-8")
            shutil.rmtree(folder / "activations", ignore_errors=True)  # of bodies that no other run has
        facts = _facts(setting, evaluation, data, skipped, watch.seconds)
        facts["steps"] = steps
        facts["lr_finder"] = [{"stage": curve.name, **curve.suggestions()} for curve in reached.curves]
        facts |= _activation_facts(activations, len(split.train) + len(split.valid))
        facts["fingerprints"]["model"] = model_sha256
        write_atomically(folder / RUN_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return evaluation


def _activation_facts(activations: Sequence[Activations], images: int) -> dict[str, Any]:
    computed = sum(each.computed for each in activations)
    work = [{**vars(each.work), "rate": round(each.work.rate, 1)} for each in activations if each.computed]
    reused = images - computed if activations else 0
    return {"activations": {"computed": computed, "reused": reused}, "activations_work": work}


def _facts(
    setting: FitSession, evaluation: Evaluation, data: Path, skipped: list[Skipped], seconds: dict[str, float]
) -> dict[str, Any]:
    recipe, split, backbone = setting.recipe, setting.split, setting.backbone
    preprocess = resized(backbone.preprocess, recipe.sizes[-1] if recipe.sizes else None)
    test_time = evaluation.test_time
    return {
        "format": RUN_FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "arch": recipe.arch,
        "classes": list(split.classes),
        "metrics": evaluation.metrics.to_json(),
        "metrics_uncalibrated": evaluation.uncalibrated.to_json(),
        "test_time": None if test_time is None else asdict(test_time),
        **confusion_facts(evaluation.confusion),
        "temperature": evaluation.temperature,
        "preprocess": asdict(preprocess),
        "mean": backbone.mean,
        "std": backbone.std,
        "seed": recipe.seed,
        "average": recipe.average,
        "data": {
            "path": str(data),
            "train": len(split.train),
            "valid": len(split.valid),
            "skipped": [{"path": str(file.path), "reason": file.reason} for file in skipped],
            "in_train_and_valid": len(shared_images(split)),
        },
        "seconds": seconds | {"total": round(sum(seconds.values()), 3)},
        "fingerprints": {
            "recipe": recipe.fingerprint(),
            "data": split.fingerprint(),
            "pretrained": setting.pretrained_sha256,
        },
        "device": str(setting.hardware.device),
        "hardware": str(setting.hardware),
        "processes": setting.processes.count,
        "versions": versions(),
    }
