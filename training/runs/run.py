"""A run folder: what `fit` writes and export reads.

`run.json` is written last, so a folder that has one is a whole run. `validation.jsonl` has a line for each validation
image: its path below the data folder, contents, class and the probabilities that the trained network gave it: all of
them, or with more than 100 classes the 100 highest, by class index, so that the file grows with the images alone.
`training.jsonl` has one for each training image, without probabilities: what INT8 is calibrated on.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from serving.image.preprocess import Preprocess
from training.data.images import LabelledImage
from training.networks.model import Network, class_count, describe_backbone, network_like

RUN_FORMAT = 1
RUN_FILE = "run.json"
MODEL_FILE = "model.safetensors"
VALIDATION_FILE, TRAINING_FILE = (f"{part}.jsonl" for part in ("validation", "training"))
RECIPE_FILE = "recipe.yaml"
MOST_LISTED = 100
"""Probabilities of an image that `validation.jsonl` has at most: all of ten thousand classes' would take gigabytes."""


class RunError(ValueError):
    """A folder that is no finished run, or whose parts do not agree; the message says which."""


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    folder: Path
    facts: dict[str, Any]
    """The contents of run.json."""

    @property
    def arch(self) -> str:
        return str(self.facts["arch"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.facts["classes"])

    @property
    def temperature(self) -> float:
        return float(self.facts["temperature"])

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(**self.facts["preprocess"])

    @property
    def data(self) -> Path:
        """The folder of images that it was trained on."""
        return Path(self.facts["data"]["path"])

    def load_classifier(self) -> Network:
        """The trained network, in eval mode.

        Raises:
            RunError: if the checkpoint is missing, or is not of the network and classes that run.json names.
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
        """The validation images, and the probabilities that the trained network gave each, float32 `[N, K]`.

        With more than 100 classes all but the 100 highest of an image are NaN: they were not recorded.

        Args:
            data: where the images are now, if no longer where they were.

        Raises:
            RunError: if the list is missing or damaged.
        """
        images, probabilities = [], []
        try:
            with (self.folder / VALIDATION_FILE).open(encoding="utf-8") as lines:
                for line in map(json.loads, lines):
                    path = (data or self.data) / line["path"]
                    images.append(LabelledImage(path, int(line["label"]), bytes.fromhex(line["sha256"])))
                    probabilities.append(self._probabilities(line))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RunError(f"{self.folder / VALIDATION_FILE} cannot be read: {error}") from error
        return images, np.array(probabilities, np.float32)

    def _probabilities(self, line: dict[str, Any]) -> NDArray[np.float32]:
        if "highest" not in line:
            return np.array(line["probabilities"], np.float32)
        row_K = np.full(len(self.classes), np.nan, np.float32)
        row_K[[int(index) for index in line["highest"]]] = list(line["highest"].values())
        return row_K

    def training(self, data: Path | None = None) -> list[LabelledImage]:
        """The images that it was trained on.

        Args:
            data: where the images are now, if no longer where they were.

        Raises:
            RunError: if the list is missing or damaged.
        """
        path = self.folder / TRAINING_FILE
        try:
            with path.open(encoding="utf-8") as lines:
                return [
                    LabelledImage((data or self.data) / line["path"], int(line["label"]), bytes.fromhex(line["sha256"]))
                    for line in map(json.loads, lines)
                ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error


def open_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        RunError: if it is none.
    """
    path = folder / RUN_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        run = Run(folder, facts)
        if facts["format"] != RUN_FORMAT:
            raise RunError(f"{path} has format {facts['format']}; this pawserve reads format {RUN_FORMAT}")
        _ = run.arch, run.classes, run.temperature, run.preprocess, run.data
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} is no finished run: it has no {RUN_FILE}. Write one with python -m training fit --data DIR "
            f"--run {folder}"
        ) from error
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be used: {type(error).__name__} {error}") from error
    return run


def validation_lines(
    images: Iterable[LabelledImage], probabilities_NK: NDArray[np.float32], data: Path
) -> Iterable[str]:
    """The lines of `validation.jsonl`."""
    for image, probabilities in zip(images, probabilities_NK, strict=True):
        if len(probabilities) <= MOST_LISTED:
            answer: dict[str, Any] = {"probabilities": probabilities.tolist()}
        else:
            highest = np.argsort(-probabilities, kind="stable")[:MOST_LISTED]
            answer = {"highest": {str(index): float(probabilities[index]) for index in highest}}
        yield _line(_facts(image, data) | answer)


def training_lines(images: Iterable[LabelledImage], data: Path) -> Iterable[str]:
    """The lines of `training.jsonl`."""
    for image in images:
        yield _line(_facts(image, data))


def _facts(image: LabelledImage, data: Path) -> dict[str, Any]:
    return {"path": image.path.relative_to(data).as_posix(), "sha256": image.sha256.hex(), "label": image.label}


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False) + "\n"
