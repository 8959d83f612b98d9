"""What `fit` is to do: frozen, range-checked dataclasses, written to and read from `recipe.yaml`."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned. The defaults are the recipe's `quick` way: a head on precomputed activations."""

    arch: str = "resnet34"
    """The backbone: any timm model that gives a feature map. `tf_efficientnet_lite0` needs no download."""
    weights: str = "pretrained"
    """`pretrained`, `none` (random), or a .safetensors or .pth file with the backbone's state dict."""
    lr: float = 0.01
    """Highest learning rate of a cycle."""
    cycles: int = 3
    """SGDR cycles; the rate falls along a cosine within each and restarts at `lr`."""
    cycle_len: int = 1
    """Epochs of the first cycle."""
    cycle_mult: int = 2
    """Each cycle is this many times as long as the one before."""
    batch_size: int = 64
    """Photos a step; a class or data set may be smaller."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.1
    """L2 penalty on the trained weights. With few photos a head of 512 units needs a strong one."""
    train_views: int = 2
    """Views of each training photo that activations are computed of: 1 as it is, 2 with its mirror image, and so on."""
    dropout: tuple[float, float] = (0.25, 0.5)
    """Before the head's first and second linear layer."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Of the split, the head's initial weights, the order of photos and dropout."""

    def __post_init__(self) -> None:
        _check(self, "lr", 1e-8, 100)
        _check(self, "cycles", 1, 100)
        _check(self, "cycle_len", 1, 1000)
        _check(self, "cycle_mult", 1, 10)
        _check(self, "batch_size", 2, 65_536)
        _check(self, "momentum", 0, 0.9999)
        _check(self, "weight_decay", 0, 1)
        _check(self, "valid_fraction", 0.01, 0.9)
        _check(self, "train_views", 1, 16)
        _check(self, "seed", 0, 2**32 - 1)
        if len(self.dropout) != 2 or not all(0 <= p < 1 for p in self.dropout):
            raise ValueError(f"dropout is {self.dropout}; two probabilities of at least 0 and below 1 are needed")
        if self.epochs > 10_000:
            raise ValueError(
                f"{self.cycles} cycles from {self.cycle_len} epochs, each {self.cycle_mult} times the one before, "
                f"are {self.epochs:,} epochs; at most 10,000 are allowed: lower cycles or cycle_mult"
            )

    @property
    def epochs(self) -> int:
        """Sum of cycle_len * cycle_mult^k over the cycles."""
        return sum(self.cycle_len * self.cycle_mult**k for k in range(self.cycles))

    def fingerprint(self) -> str:
        """SHA-256 of every setting."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write every setting, resolved, as YAML that `load` reads again."""
        fields = dataclasses.asdict(self)
        fields["dropout"] = list(self.dropout)
        path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe.

        Raises:
            ValueError: for a file that is no recipe, an unknown setting, or one out of range.
        """
        try:
            fields: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
        except OSError as error:
            raise ValueError(f"recipe {path} cannot be read: {error.strerror}") from error
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict):
            raise ValueError(f"{path} is no recipe; it must give settings of {', '.join(known)}")
        if unknown := sorted(set(map(str, fields)) - set(known)):
            raise ValueError(f"{path} sets {', '.join(unknown)}; a recipe has {', '.join(known)}")
        if "dropout" in fields:
            fields["dropout"] = tuple(fields["dropout"])
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error


def _check(recipe: Recipe, name: str, low: float, high: float) -> None:
    value = getattr(recipe, name)
    if not low <= value <= high:  # NaN fails too
        raise ValueError(f"{name} is {value}; it must lie between {low:g} and {high:g}")
