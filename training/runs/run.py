"""A run folder: what `fit` writes and export reads.

`run.json` is written last, so a folder that has one is a whole run. `validation.jsonl` has a line for each validation
image: its path below the data folder, the hash of its content, its class and the probabilities of the trained network:
all of them, or with more than 100 classes the 100 highest, by class index, so that the size of the file does not grow
with the classes. `training.jsonl` has a line for each training image, without probabilities, for INT8 calibration.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from serving.image.decode import OWN_IMAGE_LIMITS, Limits
from serving.image.preprocess import Preprocess
from serving.statistics.class_report import ClassReport
from serving.system.files import write_atomically
from training.data.images import LabelledImage, Split
from training.data.layout import path_below
from training.data.shards import image_at
from training.fitting.loop import TrainingError
from training.networks.model import Network, class_count, describe_backbone, network_like

_T = TypeVar("_T")

RUN_FORMAT = 1
RUN_FILE = "run.json"
MODEL_FILE = "model.safetensors"
VALIDATION_FILE, TRAINING_FILE = (f"{part}.jsonl" for part in ("validation", "training"))
RECIPE_FILE = "recipe.yaml"
MAX_PROBABILITIES = 100
"""Per image in `validation.jsonl`: all of ten thousand classes' would take gigabytes."""


class RunError(ValueError):
    """A folder that is not a finished run, or whose parts do not match; the message says which."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    facts: dict[str, Any]
    """The content of run.json."""
    arch: str
    classes: tuple[str, ...]
    temperature: float
    """Temperature with one view."""
    temperatures: dict[int, float]
    """Temperatures by number of views; only that of one view in runs of a version that fitted no other."""
    recommended_views: int
    """Smallest number of views that improved the log loss; 1 if none did."""
    class_report: ClassReport | None
    """Precision, recall, F1 and support on the validation images; None in runs of a version that wrote none."""
    preprocess: Preprocess
    data: Path
    """The folder of images that it was trained on."""
    limits: Limits
    """Limits of the images that it was trained on."""

    def load_classifier(self) -> Network:
        """The trained network, in eval mode.

        Raises:
            RunError: if the weights are missing, or are not of the network and classes that run.json names.
        """
        path = self.folder / MODEL_FILE
        try:
            state = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        try:
            network = network_like(describe_backbone(self.arch), state)
            network.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            raise RunError(f"{path} does not fit {self.arch}: {error}") from error
        if (there := class_count(network)) != len(self.classes):
            raise RunError(f"{path} has {there} classes and {self.folder / RUN_FILE} has {len(self.classes)}")
        return network.eval()

    def validation(self, data: Path | None = None) -> tuple[list[LabelledImage], NDArray[np.float32]]:
        """The validation images, and the trained network's probabilities for each, float32 `[N, K]`.

        With more than 100 classes all but the 100 highest of an image are NaN: they were not recorded.

        Args:
            data: where the images are now, if they have been moved.

        Raises:
            RunError: if the list is missing or damaged.
        """
        rows = self._read(VALIDATION_FILE, data, self._probabilities)
        return [image for image, _ in rows], np.array([row_K for _, row_K in rows], np.float32)

    def training(self, data: Path | None = None) -> list[LabelledImage]:
        """The images that it was trained on.

        Args:
            data: where the images are now, if they have been moved.

        Raises:
            RunError: if the list is missing or damaged.
        """
        return [image for image, _ in self._read(TRAINING_FILE, data, lambda line: None)]

    def training_counts(self) -> dict[str, int] | None:
        """How many images of each class it was trained on; None if the list is missing or damaged."""
        try:
            counts = Counter(image.label for image in self.training())
        except RunError:
            return None
        return {name: counts[label] for label, name in enumerate(self.classes)}

    def _read(
        self, name: str, data: Path | None, parse: Callable[[dict[str, Any]], _T]
    ) -> list[tuple[LabelledImage, _T]]:
        path, folder, limits = self.folder / name, data or self.data, self.limits

        def image(line: dict[str, Any]) -> LabelledImage:
            return image_at(folder, line["path"], int(line["label"]), bytes.fromhex(line["sha256"]), limits)

        try:
            with path.open(encoding="utf-8") as lines:
                return [(image(line), parse(line)) for line in map(json.loads, lines)]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def _probabilities(self, line: dict[str, Any]) -> NDArray[np.float32]:
        if "highest" not in line:
            return np.array(line["probabilities"], np.float32)
        row_K = np.full(len(self.classes), np.nan, np.float32)
        row_K[[int(index) for index in line["highest"]]] = list(line["highest"].values())
        return row_K


def open_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        RunError: if the folder is none.
    """
    path = folder / RUN_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != RUN_FORMAT:
            raise RunError(f"{path} has format {facts['format']}; this pawserve reads format {RUN_FORMAT}")
        return parse_run(folder, facts)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} is no finished run: it has no {RUN_FILE}. Write one with python -m training fit --data DIR "
            f"--run {folder}"
        ) from error
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be used: {type(error).__name__} {error}") from error


def parse_run(folder: Path, facts: dict[str, Any]) -> Run:
    """A run from the content of its run.json; raises KeyError, TypeError, ValueError or AttributeError if damaged."""
    temperatures, report = facts.get("temperatures", {"1": facts["temperature"]}), facts.get("class_report")
    return Run(
        folder,
        facts,
        arch=str(facts["arch"]),
        classes=tuple(facts["classes"]),
        temperature=float(facts["temperature"]),
        temperatures={int(views): float(temperature) for views, temperature in temperatures.items()},
        recommended_views=int(facts.get("recommended_views", 1)),
        class_report=ClassReport.from_json(report) if report else None,
        preprocess=Preprocess(**facts["preprocess"]),
        data=Path(facts["data"]["path"]),
        limits=replace(OWN_IMAGE_LIMITS, **facts["data"].get("limits", {})),
    )


def write_model(folder: Path, network: Network) -> str:
    """Write model.safetensors and return its SHA-256.

    Raises:
        TrainingError: if a weight is not finite.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise TrainingError("the trained weights are not finite: lower --lr (a tenth is a good next try)")
    content = safetensors.torch.save(state)
    write_atomically(folder / MODEL_FILE, content)  # whose errors name the file
    return hashlib.sha256(content).hexdigest()


def write_image_lists(folder: Path, split: Split, probabilities_NK: NDArray[np.float32], data: Path) -> None:
    """Write `validation.jsonl` and `training.jsonl`.

    Args:
        probabilities_NK: of the validation images.
        data: the folder that paths are relative to.
    """
    lines = validation_lines(split.valid, probabilities_NK, data)
    (folder / VALIDATION_FILE).write_text("".join(lines), encoding="utf-8")
    lines = (_line(_facts(image, data)) for image in split.train)
    (folder / TRAINING_FILE).write_text("".join(lines), encoding="utf-8")


def validation_lines(
    images: Iterable[LabelledImage], probabilities_NK: NDArray[np.float32], data: Path
) -> Iterator[str]:
    """The lines of `validation.jsonl`."""
    for image, probabilities in zip(images, probabilities_NK, strict=True):
        recorded: dict[str, Any] = {"probabilities": probabilities.tolist()}
        if len(probabilities) > MAX_PROBABILITIES:
            highest = np.argsort(-probabilities, kind="stable")[:MAX_PROBABILITIES]
            recorded = {"highest": {str(index): float(probabilities[index]) for index in highest}}
        yield _line(_facts(image, data) | recorded)


def _facts(image: LabelledImage, data: Path) -> dict[str, Any]:
    return {"path": path_below(image.path, data), "sha256": image.sha256.hex(), "label": image.label}


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False) + "\n"
