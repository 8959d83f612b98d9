"""A preset's steps on images that chose nothing: the validation images, and shifted copies of them.

    python -m benchmarks.training.course --data photos [--preset course] [--count 1000] [--seeds 0]

Trains as `fit` does, with what the held-out training images say, and measures the network after each step that is run.
The day's results keep the seeds that were measured before.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.common import absolute_path, circumstances, heading, make_parser, results_of_today, table, write_results
from benchmarks.training.engines import ARCH
from benchmarks.training.images import fit_session
from training.evaluation.metrics import compare
from training.evaluation.trials import HeldOut
from training.features.activations import default_cache
from training.fitting.checkpoint import FitState
from training.fitting.held_out import HeldOutImages
from training.fitting.selection import try_steps
from training.fitting.steps import run_step
from training.recipes.presets import PRESETS


def main() -> None:
    """Parse the arguments, train, and write the result page."""
    parser = make_parser(__doc__, "data")
    parser.add_argument("--preset", choices=PRESETS, default="course")
    parser.add_argument("--count", type=int, default=10**9, help="training images at most: a part of them, at random")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cache", type=absolute_path, default=default_cache(), help="of activations")
    arguments = parser.parse_args()
    results = results_of_today(circumstances("training-course", ("torch", "timm")))
    for seed in arguments.seeds:
        results.setdefault("seeds", {})[str(seed)] = measure_steps(
            arguments.data, arguments.preset, arguments.count, seed, arguments.cache
        )
        write_results(results, to_markdown(results))


def measure_steps(data: Path, preset: str, count: int, seed: int, cache: Path) -> dict[str, Any]:
    """Train by a preset; the results on held-out training images and, after each step, on validation images."""
    began = monotonic()
    with fit_session(data, preset, count, seed, cache) as session:
        state = FitState()
        try_steps(session, state)
        tried_s = monotonic() - began
        parts = [trial.part for trial in state.trials] or [1.0] * len(session.recipe.steps())
        steps: list[dict[str, Any]] = []
        before: HeldOut | None = None
        held_out = HeldOutImages(session, session.split.valid)
        measuring_s = 0.0
        epochs = sum(step.stage.epochs for step, part in zip(session.recipe.steps(), parts, strict=True) if part)
        for index, (step, part) in enumerate(zip(session.recipe.steps(), parts, strict=True)):
            if part:
                network = run_step(session, state, index, lambda result: None, epochs=epochs, part=part)
                measured = monotonic()
                now = held_out.measure(network, step.size)
                losses_2N, correct_2N = now.losses_2N(), now.correct_2N()
                steps.append(
                    {
                        "name": step.name,
                        "part": part,
                        "errors": (~correct_2N).sum(1).tolist(),
                        "nll": losses_2N.mean(1).tolist(),
                        "paired": None
                        if before is None
                        else [compare(*pair).to_json() for pair in zip(before.correct_2N(), correct_2N, strict=True)],
                    }
                )
                before = now
                measuring_s += monotonic() - measured
    return {
        "preset": preset,
        "train": len(session.split.train),
        "valid": len(session.split.valid),
        "trials": [trial.to_json() for trial in state.trials],
        "steps": steps,
        "seconds": {"trying": round(tried_s, 1), "all": round(monotonic() - began - measuring_s, 1)},
    }


def to_markdown(results: dict[str, Any]) -> list[str]:
    """Two tables: what held-out training images say, and what the validation images say."""
    facts = (
        f"{ARCH} with pretrained weights, 224 pixels, one view. Shifted copies are those of training/data/shifts.py."
    )
    page = heading("The course, step by step", results, facts)
    for seed, found in results["seeds"].items():
        page += [
            f"## Seed {seed}: `{found['preset']}`, {found['train']:,} training images",
            f"{found['seconds']['all']:.0f} s, of which {found['seconds']['trying']:.0f} s for trying the steps on "
            "halves of the training images.",
            "Held-out training images, and shifted copies:",
            table(
                ("step", "part", "kept", "errors", "log loss", "change (standard error)", "fixed, broken", "McNemar p"),
                _trial_rows(found["trials"]),
            ),
            f"{found['valid']:,} validation images, which decided nothing, and shifted copies, after each step:",
            table(("after", "errors", "log loss", "fixed, broken", "McNemar p"), _step_rows(found["steps"])),
        ]
    return page


def _trial_rows(trials: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for trial in trials:
        for each in trial["candidates"][1:] or trial["candidates"]:
            yield (
                trial["name"],
                f"{each['part']:.0%}",
                "yes" if each["part"] == trial["part"] else "no",
                f"{each['errors']}, {each['shifted_errors']}",
                f"{each['nll']:.4f}, {each['shifted_nll']:.4f}",
                f"{each['nll_change']:+.4f} ({each['standard_error']:.4f})",
                f"+{each['gained']} -{each['lost']}",
                f"{each['p_value']:.2f}",
            )


def _step_rows(steps: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for step in steps:
        paired = step["paired"] or []
        yield (
            step["name"] if step["part"] == 1 else f"{step['name']} ({step['part']:.0%} of its change)",
            ", ".join(map(str, step["errors"])),
            ", ".join(f"{nll:.4f}" for nll in step["nll"]),
            ", ".join(f"+{each['gained']} -{each['lost']}" for each in paired),
            ", ".join(f"{each['p_value']:.2f}" for each in paired),
        )


if __name__ == "__main__":
    main()
