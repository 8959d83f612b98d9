"""Describes a recipe in the lines that are printed before a fit starts."""

from training.console import counted
from training.recipes.recipe import Recipe, Step


def describe_recipe(recipe: Recipe) -> list[str]:
    """One line for each step, numbered, then what follows the training."""
    lines = [
        f"{recipe.arch}, {recipe.weights} weights, batches of {recipe.batch_size}, {recipe.groups} layer groups, "
        f"seed {recipe.seed}; {counted(recipe.epochs, 'epoch')} in all"
    ]
    lines += [f"  {number}. {_describe(step, recipe)}" for number, step in enumerate(recipe.steps(), 1)]
    if recipe.keep == "best" and len(recipe.steps()) > 1:
        lines.append(
            "  first the steps are tried on each half of the training images and measured on the other half and its "
            "shifted copies; those that do not improve on the step before are left out (--keep last runs all)"
        )
    after = [] if recipe.average == "none" else [f"average the {recipe.average} of the last stage's snapshots"]
    after.append(
        f"evaluate one view, and averages over up to {recipe.views}" if recipe.views > 1 else "evaluate one view"
    )
    lines.append(f"  {len(recipe.steps()) + 1}. {', then '.join(after)}; write the report")
    on_activations = {name: stage for name, stage in recipe.stages.items() if stage.learn_from == "activations"}
    lines += [
        f"  note: augment {stage.augment} of stage {name} has no effect: its activations are computed once, before it "
        "starts. Use --stages.NAME.learn-from images, or --stages.NAME.views 5 for other parts and scales"
        for name, stage in on_activations.items()
        if stage.augment != "none"
    ]
    if recipe.compile and on_activations == recipe.stages:
        lines.append("  note: --compile has no effect: no stage is trained on images")
    return lines


def _describe(step: Step, recipe: Recipe) -> str:
    stage = step.stage
    if stage.learn_from == "activations":
        trained = "the head, on precomputed activations"
        if stage.views > 1:
            trained += f" of {stage.views} views"
    else:
        group = f"layer groups {stage.freeze_to + 1} to {recipe.groups}"
        trained = {-1: "the head", 0: "the whole network"}.get(stage.freeze_to, group) + ", on images"
    words = [f"{step.name}: train {trained}"]
    if step.size:
        words.append(f"{step.size} pixels")
    if stage.learn_from == "images":
        words.append("no augmentation" if stage.augment == "none" else f"augmentation {stage.augment}")
    if stage.find_lr != "no":
        words.append("find a learning rate" + (" and use it" if stage.find_lr == "use" else ""))
    rates = ", ".join(f"{rate:g}" for rate in stage.lr)
    cycles = " + ".join(str(stage.cycle_len * stage.cycle_mult**k) for k in range(min(stage.cycles, 8)))
    cycles += " + …" if stage.cycles > 8 else ""
    words.append(f"{stage.schedule} at {rates} for {cycles} epoch{'s' * (stage.epochs > 1)}")
    return "; ".join(words)
