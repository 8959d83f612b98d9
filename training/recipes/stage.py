"""One stage of a recipe: which layer groups are trained, on what, at which learning rate and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

LearnFrom = Literal["activations", "images", "photos"]
FindLr = Literal["no", "show", "use"]
Schedule = Literal["sgdr", "one-cycle", "step", "constant"]
Augment = Literal["none", "side-on", "top-down", "varied"]

MAX_EPOCHS = 10_000
CHOICES = {"learn_from": LearnFrom, "find_lr": FindLr, "schedule": Schedule, "augment": Augment}
RANGES = {
    "freeze_to": (-1, 63),
    "cycles": (1, 100),
    "cycle_len": (1, 1000),
    "cycle_mult": (1, 10),
    "weight_decay": (0, 1),
    "views": (1, 64),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Freeze layer groups, optionally find a learning rate, then train for some cycles of epochs."""

    learn_from: LearnFrom = "images"
    """`activations`: train the head alone, on the pretrained body's activations, computed once for each image.
    `images`, formerly `photos`: train on the images."""
    freeze_to: int = -1
    """The first layer group that is trained: -1 is the head alone, 0 the whole network."""
    lr: tuple[float, ...] = (0.01,)
    """Highest learning rate: one for all trained layer groups, or one for each layer group, first to last."""
    find_lr: FindLr = "no"
    """Run the learning-rate range test first: `show` plots it, `use` sets the last group's learning rate to a tenth of
    that at the lowest loss and keeps the ratios of `lr`; if the loss has no clear minimum, `lr` is used."""
    schedule: Schedule = "sgdr"
    """`sgdr` restarts a cosine each cycle, `one-cycle` rises and falls in each, `step` divides by ten after each."""
    cycles: int = 1
    """Number of cycles."""
    cycle_len: int = 1
    """Epochs of the first cycle."""
    cycle_mult: int = 1
    """Each cycle is this many times as long as the one before."""
    weight_decay: float = 0.0
    """L2 penalty on the trained weights. A head that is trained alone on few images needs a strong one."""
    decoupled_decay: bool = False
    """Instead of the penalty, subtract from the weights in each step weight_decay / sqrt(steps of the cycle), times the
    learning rate divided by the highest (Loshchilov & Hutter 2017; `use_wd_sched` in fast.ai 0.7)."""
    augment: Augment = "none"
    """`side-on` mirrors, turns, zooms and lights images a little; `top-down` also turns them by quarters; `varied` is
    `side-on` for one half, and for the other crops, light, colour and noise that vary more."""
    views: int = 1
    """On activations: how many of the fixed views of each image to train on, those that serving averages."""

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
        check_ranges(self, RANGES)
        if self.learn_from == "photos":
            object.__setattr__(self, "learn_from", "images")
        if not self.lr:
            raise ValueError("lr is empty; give one learning rate, or one for each layer group")
        for rate in self.lr:
            check_range("lr", rate, 1e-8, 100)
        if self.decoupled_decay and not self.weight_decay:
            raise ValueError("decoupled_decay is set and weight_decay is 0, which has no effect; set both or neither")
        if self.epochs > MAX_EPOCHS:
            raise ValueError(
                f"{self.cycles} cycles from {self.cycle_len} epochs, each {self.cycle_mult} times the one before, "
                f"are {self.epochs:,} epochs; at most {MAX_EPOCHS:,} are allowed: lower cycles or cycle_mult"
            )
        if self.learn_from == "images":
            if self.views != 1:
                raise ValueError(f"views is {self.views} on images; fixed views are for activations: use augment")
        elif self.freeze_to != -1:
            raise ValueError(
                f"freeze_to is {self.freeze_to} on activations, where only the head is trained; use -1, or images"
            )
        elif len(self.lr) != 1:
            raise ValueError(
                f"lr has {len(self.lr)} learning rates on activations, where only the head is trained; give one"
            )

    @property
    def epochs(self) -> int:
        """Sum of cycle_len * cycle_mult^k over the cycles."""
        return sum(self.cycle_len * self.cycle_mult**k for k in range(self.cycles))


def check_choices(settings: object, choices: dict[str, Any]) -> None:
    """Raise ValueError unless each setting is one of its Literal's values."""
    for name, literal in choices.items():
        if (value := getattr(settings, name)) not in get_args(literal):
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(literal))}")


def check_ranges(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError unless each setting lies in its range; None is allowed."""
    for name, (low, high) in ranges.items():
        if (value := getattr(settings, name)) is not None:
            check_range(name, value, low, high)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high; NaN fails too."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low:g} and {high:g}")
