"""What the commands that use networks do: fit, find-lr, evaluate and check. Loads torch."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from serving.system.files import write_atomically
from serving.system.output import print_json
from training.check import DATA_PAGE
from training.check import check as check_folder
from training.checks.files import DUPLICATES_FILE, SUSPECTS_FILE
from training.cli.data_options import Check, Compare, Evaluate
from training.cli.recipe_options import FindLr, Fit
from training.comparison.page import comparison_page
from training.comparison.runs import compare_runs, open_runs
from training.comparison.text import runs_view
from training.console import progress, say
from training.data.exclusions import read_exclusions
from training.data.served_labels import read_served_labels
from training.evaluate import evaluate_run
from training.evaluation.evaluation import Evaluation
from training.evaluation.test_time import describe_test_time
from training.features.activations import default_cache
from training.find_lr import find_lr_for_stage
from training.fit import fit as fit_run
from training.reports.evaluation_folder import FIGURES_FILE, PREDICTIONS_FILE, write_evaluation
from training.reports.plots import plot_lr_curve
from training.reports.report import REPORT_FILE
from training.runs.folder import can_resume, is_finished
from training.runs.run import RUN_FILE, open_run


def fit(options: Fit) -> None:
    """Train a classifier and report its accuracy."""
    recipe = options.resolved_recipe()
    is_first = os.environ.get("RANK", "0") == "0"  # only one of several processes reports
    if options.auto_resume and is_finished(options.run, recipe):
        if is_first:
            say(f"{options.run} is finished: there is nothing to do")
        return
    evaluation = fit_run(
        options.data,
        options.run,
        recipe,
        options.cache or default_cache(),
        limits=options.size.limits(),
        resume=options.resume or (options.auto_resume and can_resume(options.run)),
        checkpoint_every_s=options.checkpoint_every,
        exclusions=read_exclusions(options.exclude) if options.exclude else None,
        labels=read_served_labels(options.labels, options.images) if options.labels and options.images else None,
        check=options.check,
        log=options.log,
    )
    if not is_first:
        return
    facts = json.loads((options.run / RUN_FILE).read_text(encoding="utf-8"))
    say_steps(facts["steps"])
    say_accuracy(evaluation)
    if options.json:
        print_json(facts)
    say(f"run written in {facts['seconds']['total']:.1f} s; open {options.run / REPORT_FILE}")


def find_lr(options: FindLr) -> None:
    """Run the range test and plot it."""
    stage = options.stage or next(iter(options.settings.stages))
    cache = options.cache or default_cache()
    curve = find_lr_for_stage(options.data, options.settings, stage, cache, limits=options.size.limits())
    write_atomically(options.plot, plot_lr_curve(curve).png())
    say(f"plotted in {options.plot}")
    if options.json:
        rate, why = curve.recommendation()
        print_json(vars(curve) | {"suggestions": curve.suggestions(), "recommended": rate, "why": why})


def evaluate(options: Evaluate) -> None:
    """Evaluate a run and report its accuracy."""
    run = open_run(options.run)
    evaluation, images, skipped = evaluate_run(
        run, options.data, options.views, cache=options.cache, limits=options.size.limits()
    )
    say_accuracy(evaluation)
    if options.json:
        print_json(evaluation.to_json() | {"skipped": [file.to_json() for file in skipped]})
    if options.out is not None:
        write_evaluation(options.out, run, options.data, evaluation, images, skipped)
        say(f"written: {PREDICTIONS_FILE}, {FIGURES_FILE}; open {options.out / REPORT_FILE}")


def compare(options: Compare) -> None:
    """Compare runs: tables, or JSON, and a page."""
    runs = open_runs(options.runs)
    pairs = compare_runs(runs)
    with progress("page") as on_progress:
        write_atomically(options.out, comparison_page(runs, pairs, on_progress))
    if options.json:
        print_json({"runs": [each.name for each in runs], "pairs": [pair.to_json() for pair in pairs]})
    else:
        Console().print(runs_view(runs, pairs))
    say(f"open {options.out}")


def check(options: Check) -> None:
    """Check a data set, write the lists and the page, and report what was found."""
    cache = options.cache or default_cache()
    checks = check_folder(options.data, options.out, options.recipe(), cache, limits=options.size.limits())
    if options.json:
        print_json(checks.to_json())
    say(f"written: {SUSPECTS_FILE}, {DUPLICATES_FILE}; open {options.out / DATA_PAGE}")


def say_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Report the validation results after each step, if there are several."""
    for step in steps if len(steps) > 1 else ():
        metrics, paired = step["metrics"], step["against_previous"]
        against = ""
        if paired is not None:
            against = f"; {paired['gained']} fixed, {paired['lost']} broken (McNemar p = {paired['p_value']:.2f})"
        part = "" if step["part"] == 1 else f" ({step['part']:.0%} of its change)"
        say(
            f"after {step['name']}{part}: {metrics['correct']:,}/{metrics['n']:,} correct, log loss "
            f"{metrics['nll']['value']:.4f}{against}; {step['seconds']:.1f} s"
        )


def say_accuracy(evaluation: Evaluation) -> None:
    """Report accuracy, and what test-time augmentation changes."""
    metrics = evaluation.metrics
    interval = metrics.accuracy
    say(f"accuracy {metrics.accuracy_text()}; 95% interval {100 * interval.lower:.2f}% to {100 * interval.upper:.2f}%")
    for warning in evaluation.warnings():
        say(f"warning: {warning}")
    for each in evaluation.test_time:
        paired = each.paired
        say(
            f"{each.views} views: accuracy {each.metrics.accuracy_text()}, {paired.fixed} fixed, {paired.broken} "
            f"broken (McNemar p = {paired.p_value:.2f}); negative log likelihood {each.metrics.nll.value:.4f} against "
            f"{metrics.nll.value:.4f} with one view; adaptive TTA: {each.adaptive.describe(metrics.n)}"
        )
    if evaluation.test_time:
        say(describe_test_time(evaluation.test_time))
