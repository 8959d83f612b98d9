"""A recipe in; what it is going to do, in words, out: printed before it starts."""

from training.recipes.recipe import Recipe, Step
from training.recipes.stage import Stage


def describe_plan(recipe: Recipe) -> list[str]:
    """One line a step, numbered, then what follows the training."""
    lines = [
        f"{recipe.arch}, {recipe.weights} weights, batches of {recipe.batch_size}, {recipe.groups} layer groups, "
        f"seed {recipe.seed}; {recipe.epochs} epochs in all"
    ]
    lines += [f"  {number}. {_describe(step, recipe)}" for number, step in enumerate(recipe.steps(), 1)]
    after = []
    if recipe.average != "none":
        after.append(f"average the {recipe.average} of the last stage's snapshots")
    after.append(f"evaluate, averaging {recipe.views} views" if recipe.views > 1 else "evaluate, one view")
    lines.append(f"  {len(recipe.steps()) + 1}. {', then '.join(after)}; write the report")
    for name, stage in recipe.stages.items():
        if has_no_effect(stage):
            lines.append(
                f"  note: augment {stage.augment} of stage {name} has no effect: its activations are computed once, "
                "before it starts. Use --stages.NAME.learn-from photos, or --stages.NAME.views 2 for mirror images"
            )
    if recipe.compile and all(stage.learn_from == "activations" for stage in recipe.stages.values()):
        lines.append(
            "  note: --compile has no effect: no stage learns from images, and activations come from the fastest engine"
        )
    return lines


def has_no_effect(stage: Stage) -> bool:
    """Whether a stage asks for an augmentation that precomputed activations cannot have."""
    return stage.learn_from == "activations" and stage.augment != "none"


def _describe(step: Step, recipe: Recipe) -> str:
    stage = step.stage
    if stage.learn_from == "activations":
        learns = "the head, on precomputed activations"
        if stage.views > 1:
            learns += f" of {stage.views} views"
    elif stage.freeze_to == -1:
        learns = "the head, on images"
    elif stage.freeze_to == 0:
        learns = "the whole network, on images"
    else:
        learns = f"layer groups {stage.freeze_to + 1} to {recipe.groups}, on images"
    rates = ", ".join(f"{rate:g}" for rate in stage.lr)
    cycles = " + ".join(str(stage.cycle_len * stage.cycle_mult**k) for k in range(min(stage.cycles, 8)))
    cycles += " + …" if stage.cycles > 8 else ""
    words = [f"{step.name}: {learns}"]
    if step.size:
        words.append(f"{step.size} pixels")
    if stage.learn_from == "photos":
        words.append("no augmentation" if stage.augment == "none" else f"augmentation {stage.augment}")
    if stage.find_lr != "no":
        words.append("find a rate" + (" and use it" if stage.find_lr == "use" else ""))
    words.append(f"{stage.schedule} at {rates} for {cycles} epoch{'s' * (stage.epochs > 1)}")
    return "; ".join(words)
