"""`python -m training fit`: from a data set and a recipe to a finished run."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.image.decode import Limits
from serving.system.files import write_atomically
from training.checks.data_checks import DataChecks, check_data, describe_checks
from training.checks.files import write_lists
from training.console import Stopwatch, say
from training.data.exclusions import Exclusions
from training.data.image_files import say_skipped
from training.data.images import TRAINING_LIMITS, labels_of
from training.data.served_labels import ServedLabels
from training.distributed import joined_processes
from training.evaluation.evaluation import Evaluation, evaluate
from training.features.provider import view_logits
from training.fitting.history import recorded
from training.fitting.loop import EpochResult
from training.fitting.selection import HALVES, try_steps
from training.fitting.session import FitSession, set_up
from training.fitting.steps import run_steps
from training.hardware import choose_hardware
from training.recipes.describe import describe_plan
from training.recipes.recipe import Recipe
from training.reports.report import REPORT_FILE
from training.reports.writer import step_facts, write_report
from training.runs.folder import building, partial_folder
from training.runs.repeat import repeat_command
from training.runs.run import MODEL_FILE, RECIPE_FILE, RUN_FILE, RUN_FORMAT, write_image_lists, write_model
from training.tracking.tracker import TrackedRun, TrackerName, final_metrics, flattened
from training.tracking.trackers import Trackers, tracked
from training.versions import versions


def fit(
    data: Path,
    run: Path,
    recipe: Recipe,
    cache: Path,
    *,
    limits: Limits = TRAINING_LIMITS,
    resume: bool = False,
    checkpoint_every_s: float = 20.0,
    exclusions: Exclusions | None = None,
    labels: ServedLabels | None = None,
    check: bool = True,
    log: Sequence[TrackerName] = ("tensorboard",),
) -> Evaluation:
    """Train a classifier and write a run; every process that torchrun started calls this.

    Args:
        data: folder of images, as `training.data.images` reads it, or of shards.
        run: folder to write; a finished run there is kept as NAME.previous once the new one is whole.
        cache: where activations are kept between runs.
        limits: larger images are left out.
        resume: continue from the checkpoint of a run that did not finish.
        checkpoint_every_s: seconds between checkpoints, which are written at the ends of epochs.
        exclusions: images to leave out or to relabel.
        labels: labels from serving, whose images are trained on too.
        check: check the data, if the recipe computes activations of the pretrained network.
        log: trackers of the run; one that fails is reported, and the fit goes on without it.

    Raises:
        DataError, WeightsError, TrainingError, ResumeError, ValueError: with what to change.
        OSError: if something cannot be written; `.NAME.partial` is kept if it holds a checkpoint.
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
        params = {"data": str(data.resolve()), **flattened(recipe.as_fields())}
        with ExitStack() as until_tracked:
            with place as folder:
                processes.wait()
                tracked_run = TrackedRun(run.resolve().name, folder, params)
                trackers = until_tracked.enter_context(tracked(log if processes.first else (), tracked_run))
                watch = Stopwatch()
                session = set_up(
                    data,
                    recipe,
                    cache,
                    limits=limits,
                    targets=(run, cache),
                    folder=folder,
                    hardware=hardware,
                    processes=processes,
                    checkpoint_every_s=checkpoint_every_s,
                    stage=watch.stage,
                    exclusions=exclusions,
                    labels=labels,
                )
                command = repeat_command(session, run, check=check)
                evaluation = _fit(session, watch, trackers, command, resume=resume, check=check)
            _log_results(trackers, run, evaluation, watch)
        return evaluation


def _log_results(trackers: Trackers, run: Path, evaluation: Evaluation, watch: Stopwatch) -> None:
    """Upload metrics and files. The run is in its place by now, so nothing is lost if a tracker does not answer."""
    files = [run / name for name in (REPORT_FILE, MODEL_FILE, RECIPE_FILE, RUN_FILE)]
    try:
        trackers.log_results(final_metrics(evaluation) | {"final/seconds": sum(watch.seconds.values())}, files)
    except KeyboardInterrupt as error:
        error.add_note(f"the run is whole in {run}; its files were not all given to the trackers")
        raise


def _fit(
    session: FitSession, watch: Stopwatch, trackers: Trackers, command: str, *, resume: bool, check: bool
) -> Evaluation:
    recipe, processes, folder = session.recipe, session.processes, session.folder
    state = session.checkpoints.load(session.hardware.device)
    watch.add(state.watch)
    state.watch = watch
    if resume:
        tried = f" and {len(state.trials)} steps tried" if state.trials else ""
        say(f"resuming after {len(state.history)} of {recipe.epochs} epochs{tried}")
    with watch.stage("try steps"):
        try_steps(session, state)
    recording: AbstractContextManager[Callable[[EpochResult], None]] = (
        recorded(folder, state.history) if processes.first else nullcontext(lambda result: None)
    )
    for earlier in state.history:
        trackers.log_epoch(earlier)
    with watch.stage("train"), recording as record:

        def report_epoch(epoch: EpochResult) -> None:
            trackers.log_epoch(epoch)
            record(epoch)

        result = run_steps(session, state, report_epoch)
    network = result.network.to("cpu").eval()
    with watch.stage("evaluate"):
        logits_VNK, valid, unreadable = view_logits(
            network,
            session.split.valid,
            views=recipe.views,
            provider=lambda member: session.provider(member, recipe.last_size),
        )
        processes.wait()  # until all have read what the first is going to remove
        say_skipped(unreadable)  # which could be read before the training
        split = replace(session.split, valid=valid)
        session = replace(session, split=split, skipped=session.skipped + unreadable)
        evaluation = evaluate(logits_VNK, labels_of(valid), split.classes)
        steps = step_facts(state.results)
    if processes.first:
        with watch.stage("check data"):
            checks = check_session(session, folder) if check and session.activations else None
        with watch.stage("write"):
            model_sha256 = write_model(folder, network)
            recipe.save(folder / RECIPE_FILE)
            write_image_lists(folder, split, evaluation.probabilities_NK, session.data)
        with watch.stage("report"):
            write_report(session, result, evaluation, steps, watch.seconds, checks, command)
        for needless in ("activations", HALVES):  # of bodies that no other run has
            shutil.rmtree(folder / needless, ignore_errors=True)
        facts = _facts(session, evaluation, checks, watch.seconds)
        facts |= {
            "average": recipe.average if not state.trials or state.trials[-1].part else "none",
            "command": command,
            "steps": steps,
            "trials": [trial.to_json() for trial in state.trials],
            "lr_finder": [
                {"stage": curve.name, **curve.suggestions(), "recommended": curve.recommendation()[0]}
                for curve in state.curves
            ],
            **_activation_facts(session),
        }
        facts["fingerprints"]["model"] = model_sha256
        write_atomically(folder / RUN_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return evaluation


def check_session(session: FitSession, folder: Path) -> DataChecks:
    """Check the data on the activations of the first step, write the lists into a folder, and report what was found."""
    train, valid = session.activations
    checks = check_data(
        session.data, session.split.classes, train, valid, session.cache, session.skipped, seed=session.recipe.seed
    )
    write_lists(checks, folder)
    for line in describe_checks(checks):
        say(line)
    return checks


def _activation_facts(session: FitSession) -> dict[str, Any]:
    computed = sum(each.computed for each in session.activations)
    images = sum(len(each.images) for each in session.activations)
    work = [vars(each.work) | {"rate": round(each.work.rate, 1)} for each in session.activations if each.work]
    return {"activations": {"computed": computed, "reused": images - computed}, "activations_work": work}


def _facts(
    session: FitSession, evaluation: Evaluation, checks: DataChecks | None, seconds: dict[str, float]
) -> dict[str, Any]:
    recipe, split, backbone = session.recipe, session.split, session.backbone
    return {
        "format": RUN_FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "arch": recipe.arch,
        "classes": list(split.classes),
        **evaluation.to_json(),
        "metrics_uncalibrated": asdict(evaluation.uncalibrated),
        "preprocess": asdict(backbone.preprocess_at(recipe.last_size)),
        "mean": backbone.mean,
        "std": backbone.std,
        "seed": recipe.seed,
        "data": {
            "path": str(session.data),
            "train": len(split.train),
            "valid": len(split.valid),
            "skipped": [file.to_json() for file in session.skipped],
            "in_train_and_valid": len(split.shared()),
            "in_two_classes": len(split.contradictory()),
            "checks": checks and checks.to_json(),
            "exclusions": session.exclusions,
            "labels": session.labels,
            "limits": {"max_bytes": session.limits.max_bytes, "max_pixels": session.limits.max_pixels},
        },
        "seconds": seconds | {"total": round(sum(seconds.values()), 3)},
        "fingerprints": {
            "recipe": recipe.fingerprint(),
            "data": split.fingerprint(),
            "pretrained": session.pretrained_sha256,
        },
        "device": str(session.hardware.device),
        "hardware": str(session.hardware),
        "processes": session.processes.count,
        "versions": versions(),
    }
