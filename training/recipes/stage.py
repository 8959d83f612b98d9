"""One fit of a recipe: which part of the network learns, from what, how fast and for how long."""

from dataclasses import dataclass
from typing import Any, Literal

LearnFrom = Literal["activations", "photos"]
FindLr = Literal["no", "show", "use"]
Schedule = Literal["sgdr", "one-cycle", "step", "constant"]
Augment = Literal["none", "side-on", "top-down"]

MAX_EPOCHS = 10_000
CHOICES: dict[str, tuple[str, ...]] = {
    "learn_from": ("activations", "photos"),
    "find_lr": ("no", "show", "use"),
    "schedule": ("sgdr", "one-cycle", "step", "constant"),
    "augment": ("none", "side-on", "top-down"),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A fit: freeze, perhaps find a rate, then some cycles of epochs."""

    learn_from: LearnFrom = "photos"
    """`activations`: the head alone, on what the pretrained body made of each image, computed once. `photos`: all."""
    freeze_to: int = -1
    """The first layer group that learns: -1 is the head alone, 0 the whole network."""
    lr: tuple[float, ...] = (0.01,)
    """Highest learning rate: one for all layer groups that learn, or one for each layer group, first to last."""
    find_lr: FindLr = "no"
    """Run the learning-rate range test first: `show` plots it, `use` sets the last group's rate to a tenth of the rate
    at the lowest loss and keeps the ratios of `lr`."""
    schedule: Schedule = "sgdr"
    """`sgdr` restarts a cosine each cycle, `one-cycle` rises and falls in each, `step` divides by ten after each."""
    cycles: int = 1
    """How many cycles."""
    cycle_len: int = 1
    """Epochs of the first cycle."""
    cycle_mult: int = 1
    """Each cycle is this many times as long as the one before."""
    weight_decay: float = 0.0
    """L2 penalty on the weights that learn. A head that learns alone from few images needs a strong one."""
    decoupled_decay: bool = False
    """Take weight_decay / sqrt(steps of the cycle), times the step's part of the highest rate, off the weights in each
    step, in place of the penalty (Loshchilov & Hutter 2017; `use_wd_sched` in fast.ai 0.7)."""
    augment: Augment = "none"
    """`side-on` mirrors, turns, zooms and lights images a little; `top-down` also turns and mirrors them at will."""
    views: int = 1
    """On activations: how many of the fixed views of each image to learn from; the second is the mirror image."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if not self.lr:
            raise ValueError("lr is empty; give one learning rate, or one for each layer group")
        for rate in self.lr:
            check_range("lr", rate, 1e-8, 100)
        check_range("freeze_to", self.freeze_to, -1, 63)
        check_range("cycles", self.cycles, 1, 100)
        check_range("cycle_len", self.cycle_len, 1, 1000)
        check_range("cycle_mult", self.cycle_mult, 1, 10)
        check_range("weight_decay", self.weight_decay, 0, 1)
        check_range("views", self.views, 1, 64)
        if self.decoupled_decay and not self.weight_decay:
            raise ValueError(
                "decoupled_decay is set and weight_decay is 0, so it would do nothing; set both or neither"
            )
        if self.epochs > MAX_EPOCHS:
            raise ValueError(
                f"{self.cycles} cycles from {self.cycle_len} epochs, each {self.cycle_mult} times the one before, "
                f"are {self.epochs:,} epochs; at most {MAX_EPOCHS:,} are allowed: lower cycles or cycle_mult"
            )
        if self.learn_from == "activations" and self.freeze_to != -1:
            raise ValueError(
                f"freeze_to is {self.freeze_to} on activations, which only the head learns from; use -1, or images"
            )
        if self.learn_from == "activations" and len(self.lr) != 1:
            raise ValueError(f"lr has {len(self.lr)} rates on activations, which only the head learns from; give one")
        if self.learn_from == "photos" and self.views != 1:
            raise ValueError(f"views is {self.views} on images; fixed views are for activations: use augment instead")

    @property
    def epochs(self) -> int:
        """Sum of cycle_len * cycle_mult^k over the cycles."""
        return sum(self.cycle_len * self.cycle_mult**k for k in range(self.cycles))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Stage":
        """From what YAML gives: a single rate may stand without a list.

        Raises:
            TypeError, ValueError: for a setting that is unknown or out of range.
        """
        if "lr" in fields:
            lr = fields["lr"]
            fields = fields | {"lr": tuple(map(float, lr)) if isinstance(lr, list | tuple) else (float(lr),)}
        return cls(**fields)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high; NaN fails too."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low:g} and {high:g}")
