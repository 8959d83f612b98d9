"""The recipe of a fit: a frozen, range-checked declaration, written to and read from `recipe.yaml`."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from training.recipes.stage import Stage, check_choices, check_range, check_ranges

Average = Literal["none", "weights", "predictions"]
Keep = Literal["best", "last"]
ClassWeights = Literal["none", "balanced"]

RANGES = {
    "groups": (2, 64),
    "batch_size": (2, 65_536),
    "momentum": (0, 0.9999),
    "head_width": (1, 8192),
    "views": (1, 64),
    "valid_fraction": (0.01, 0.9),
    "seed": (0, 2**32 - 1),
}


def _head_on_activations() -> dict[str, Stage]:
    return {"head": Stage(learn_from="activations", cycles=3, cycle_mult=2, weight_decay=0.1, views=3)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage at one input size: one fit of several that follow each other."""

    name: str
    stage: Stage
    size: int | None
    """Side of the network's input in pixels; None is the backbone's own."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned. The defaults are the preset `quick`: a head on precomputed activations."""

    arch: str = "resnet34"
    """The backbone: any timm model that gives a feature map. `tf_efficientnet_lite0` needs no download."""
    weights: str = "pretrained"
    """`pretrained`, `none` (random), a .safetensors, .pth or .ckpt file with the backbone's weights, or a run, whose
    trained body is taken: its classes may be others."""
    sizes: tuple[int, ...] = ()
    """Side of the network's input in pixels; the backbone's own if not given. With several, all stages run at each in
    turn (progressive resizing), and the last is deployed."""
    groups: int = 3
    """Number of layer groups: the body's, and the head as the last."""
    batch_size: int = 64
    """Images in a batch, over all processes; a class or data set may be smaller. The presets' learning rates are for
    64: lower them in proportion for smaller batches."""
    momentum: float = 0.9
    """Momentum of SGD."""
    dropout: tuple[float, float] = (0.25, 0.5)
    """Dropout before the head's first and second linear layer."""
    head_width: int | None = None
    """Units of the head's hidden layer. Unset: 512 on resnet34, as in fast.ai, and on other backbones in proportion to
    their size: 32 on tf_efficientnet_lite0."""
    freeze_bn: bool = False
    """Keep the statistics of all pretrained batch norms, also where their layer group is trained."""
    average: Average = "none"
    """How the snapshots at the last stage's cycle ends are used: `none` takes the last one, `weights` the mean of their
    weights, `predictions` keeps all and averages their predictions."""
    class_weights: ClassWeights = "none"
    """How classes count in the training loss: `none` by their images, `balanced` each the same, for classes of very
    different sizes. Probabilities then suit images of which each class is as frequent."""
    keep: Keep = "last"
    """`best` first tries the steps on each half of the training images and measures them on the other half and on its
    shifted copies; a step that does not improve on the one before is left out, and of one that does, as much of its
    weights is mixed in as is best. The validation images decide nothing. `last` runs all steps."""
    views: int = 5
    """Most views that the evaluation averages over (test-time augmentation), those that serving uses; 1 for none. It
    fits a temperature for 1, 3 and 5 views, as far as there are so many, and recommends the number that helps."""
    compile: bool = False
    """Compile the network with torch.compile where stages are trained on images."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Seed of the split, the head's initial weights, the order of images, dropout and augmentation."""
    stages: dict[str, Stage] = field(default_factory=_head_on_activations)
    """Name -> stage, in the order in which they run."""

    def __post_init__(self) -> None:
        for size in self.sizes:
            check_range("sizes", size, 16, 1024)
        check_ranges(self, RANGES)
        check_choices(self, {"average": Average, "keep": Keep, "class_weights": ClassWeights})
        if len(self.dropout) != 2 or not all(0 <= p < 1 for p in self.dropout):
            raise ValueError(f"dropout is {self.dropout}; two probabilities of at least 0 and below 1 are needed")
        if not self.stages:
            raise ValueError("stages is empty; a recipe needs at least one stage")
        for name, stage in self.stages.items():
            if stage.freeze_to >= self.groups:
                raise ValueError(
                    f"freeze_to of stage {name} is {stage.freeze_to}; with {self.groups} layer groups it must lie "
                    f"between -1 and {self.groups - 1}"
                )
        if self.average != "none" and list(self.stages.values())[-1].cycles < 2:
            raise ValueError(
                f"average is {self.average!r}, and the last stage has one cycle, so one snapshot: give it two cycles "
                "or more"
            )

    @property
    def epochs(self) -> int:
        """Of all steps together."""
        return sum(step.stage.epochs for step in self.steps())

    @property
    def last_size(self) -> int | None:
        """Side of the deployed network's input in pixels; None is the backbone's own."""
        return self.sizes[-1] if self.sizes else None

    def steps(self) -> list[Step]:
        """The stages in order; with several sizes, once more for each further size."""
        first = self.sizes[0] if self.sizes else None
        steps = [Step(name=name, stage=stage, size=first) for name, stage in self.stages.items()]
        for size in self.sizes[1:]:
            steps += [Step(name=f"{name} at {size}", stage=stage, size=size) for name, stage in self.stages.items()]
        return steps

    def as_fields(self) -> dict[str, Any]:
        """Every setting as plain lists, dicts and numbers."""
        fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return fields

    def fingerprint(self) -> str:
        """SHA-256 of every setting."""
        return hashlib.sha256(json.dumps(self.as_fields()).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write every setting, resolved, as YAML that `load` reads again."""
        path.write_text(yaml.safe_dump(self.as_fields(), sort_keys=False, allow_unicode=True), encoding="utf-8")

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
        try:
            settings = _parsed("it", "a recipe", fields, cls)
            stages = settings.get("stages", {})
            if not isinstance(stages, dict):
                raise ValueError("stages must be a mapping from a name to a stage's settings")
            if "stages" in settings:
                settings["stages"] = {
                    str(name): Stage(**_parsed(f"stage {name}", "a stage", stage, Stage))
                    for name, stage in stages.items()
                }
            return cls(**settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two sets of settings differ, as lines 'name: ours now, theirs then'."""
    lines = []
    for name in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            lines += differences(mine, other, f"{prefix}{name}.")
        elif mine != other:
            lines.append(f"{prefix}{name}: {mine!r} now, {other!r} then")
    return lines


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    int | None: ((int, type(None)), "a whole number, or null"),
}
_LISTS: dict[str, tuple[tuple[type, ...], str]] = {
    "sizes": ((int,), "whole numbers"),
    "dropout": ((int, float), "two numbers"),
}


def _parsed(where: str, what: str, fields: Any, of: type) -> dict[str, Any]:
    """Settings from YAML, which may hold anything, with their names and types checked."""
    known = [field.name for field in dataclasses.fields(of)]
    if not isinstance(fields, dict):
        raise ValueError(f"{where} is no recipe; {what} gives settings of {', '.join(known)}")
    if unknown := sorted(set(map(str, fields)) - set(known)):
        raise ValueError(f"{where} sets {', '.join(unknown)}; {what} has {', '.join(known)}")
    kinds, parsed = get_type_hints(of), dict(fields)
    for name, value in fields.items():
        kind = kinds[name]
        if kind is float and isinstance(value, str):
            with suppress(ValueError):
                value = parsed[name] = float(value)  # YAML reads 1e-3 as text: its numbers have a point
        if kind in _KINDS:
            types, words = _KINDS[kind]
            if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} of {what} is {value!r}; it must be {words}")
        elif name == "lr":  # a single one may stand without a list
            parsed[name] = tuple(map(float, value)) if isinstance(value, list) else (float(value),)
        elif name in _LISTS:
            types, words = _LISTS[name]
            if not isinstance(value, list) or not all(type(each) in types for each in value):  # true is an int, too
                raise ValueError(f"{name} is {value!r}; it must be a list of {words}, in brackets")
            parsed[name] = tuple(value)
    return parsed
