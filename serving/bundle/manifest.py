"""The manifest of a bundle (`model.json`), and reading a bundle with its hashes checked.

`models/NAME/VERSION/` holds `model.json` and the files that it lists, each with its size and SHA-256.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from serving.bundle.engine_file import EngineFile
from serving.bundle.engine_file import Precision as Precision
from serving.bundle.model_version import ModelVersion, check_name
from serving.bundle.validation import ValidationPredictions
from serving.image.averaging import FITTED_VIEWS
from serving.image.preprocess import Preprocess
from serving.image.views import MAX_VIEWS, VIEWS_VERSION

FORMAT = 2
MANIFEST = "model.json"
REPORT = "report.html"
"""The report of the training, if the bundle has one: for people, not checked."""
CARD = "README.md"
"""The model card, if the bundle has one: for people, who may edit it, so not checked."""
INPUT_NAME = "images"
"""The graph's input: uint8 `[N, crop, crop, 3]`, RGB."""
OUTPUT_NAME = "probabilities"
"""The graph's output: float32 `[N, K]`, rows that sum to 1."""

Runtime = Literal["onnxruntime", "tensorrt"]
"""The runtime of a file. Files for ONNX Runtime can also be built into TensorRT engines, except INT8, which has a file
for each runtime."""

_FILE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BundleError(ValueError):
    """A folder that is not a bundle, or whose parts do not agree; the message says which part and why."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file that an engine can run."""

    file: str
    """File name inside the bundle's folder."""
    precision: Precision
    runtime: Runtime = "onnxruntime"
    sha256: str
    bytes: int
    quantization: dict[str, Any] = field(default_factory=dict)
    """fp16 and INT8: which layers stayed float32; INT8: how it was calibrated and on how many images."""
    parity: dict[str, Any] = field(default_factory=dict)
    """Parity with the trained network: what was compared, on how many images, and the result."""

    def __post_init__(self) -> None:
        if not _FILE_PATTERN.fullmatch(self.file):
            raise ValueError(f"artifact file {self.file!r} must be a plain file name inside the bundle")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `model.json`."""

    name: str
    version: int
    created: str
    """ISO 8601, UTC."""
    arch: str
    """The backbone's timm name."""
    classes: tuple[str, ...]
    """Class names; the position is the index in the network's output."""
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Normalisation of RGB in 0-1, for information: it is part of the graph."""
    temperature: float
    """Divisor of the logits before softmax, for information: it is part of the graph. Fitted for one view."""
    artifacts: tuple[Artifact, ...]
    metrics: dict[str, Any]
    """Accuracy, nll, brier and ece with n and 95% intervals, on the validation images; `predictions`, what drift is
    measured against (`ValidationPredictions`), unless an earlier release has exported it."""
    fingerprints: dict[str, str]
    """SHA-256 of the recipe, the data and the trained weights."""
    versions: dict[str, str]
    """Versions of the libraries that made it."""
    temperatures: dict[int, float] = field(default_factory=dict)
    """By number of views, the temperature fitted for their average; with that of one view (serving/image/averaging.py).
    If not given, that of one view for all."""
    recommended_views: int = 1
    """Smallest number of views that improved the log loss on the validation images; 1 if none did."""
    views_version: int = VIEWS_VERSION
    """Version of the list of views (serving/image/views.py) that temperatures and threshold are for."""
    adaptive: dict[str, Any] = field(default_factory=dict)
    """Adaptive requests compute more views if the highest probability of the first view is below `threshold`, by
    default the number of `views` it was chosen for. For information: `mean_views` and `agreement` on `photos` images.
    Empty if no threshold was chosen."""
    engines: tuple[EngineFile, ...] = ()
    """Engines of TensorRT for RTX that were built from the artifacts."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check_format(self.format)
        if self.views_version != VIEWS_VERSION:
            raise ValueError(
                f"made for version {self.views_version} of the views; this is version {VIEWS_VERSION}: averages over "
                "several views would differ. Export again, or install the pawserve that made it"
            )
        check_name(self.name)
        if self.version < 1:
            raise ValueError(f"version is {self.version}; versions count from 1")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes are {list(self.classes)[:10]}; at least two different names are needed")
        if not self.artifacts:
            raise ValueError("artifacts is empty; at least one is needed")
        threshold = self.adaptive_threshold
        if threshold is not None and not _is_probability(threshold):
            raise ValueError(f"the adaptive threshold is {threshold!r}; it must be a probability, 0 to 1")
        self._check_views()
        accuracy = self.metrics.get("accuracy")
        ends = ("value", "lower", "upper")
        if accuracy is not None and not (
            isinstance(accuracy, dict) and all(_is_probability(accuracy.get(e)) for e in ends)
        ):
            raise ValueError(f"metrics.accuracy is {accuracy!r}; it must have value, lower and upper, each 0 to 1")
        if (counted := self.validation) and len(counted.class_counts) != len(self.classes):
            raise ValueError(
                f"metrics.predictions counts {len(counted.class_counts)} classes, and there are {len(self.classes)}"
            )

    def _check_views(self) -> None:
        if not self.temperatures:
            object.__setattr__(self, "temperatures", {1: self.temperature})
        if not all(views in range(1, MAX_VIEWS + 1) and t > 0 for views, t in self.temperatures.items()):
            raise ValueError(
                f"temperatures is {self.temperatures}; needed: numbers of views, 1 to {MAX_VIEWS}, each with a "
                "temperature above 0"
            )
        if self.temperatures.get(1) != self.temperature:
            raise ValueError(
                f"temperatures has {self.temperatures.get(1)} for one view, and temperature is {self.temperature}; "
                "they must be equal"
            )
        for name, views in (("recommended_views", self.recommended_views), ("adaptive.views", self.adaptive_views)):
            if not isinstance(views, int) or not 1 <= views <= MAX_VIEWS:
                raise ValueError(f"{name} is {views!r}; it must be 1 to {MAX_VIEWS}")

    @property
    def adaptive_views(self) -> int:
        """Number of views of an adaptive request that names none: the one that the threshold was chosen for."""
        views: int = self.adaptive.get("views", FITTED_VIEWS[-1])
        return views

    @property
    def adaptive_threshold(self) -> float | None:
        """Highest probability of the first view from which adaptive requests compute no more views; None for none."""
        return self.adaptive.get("threshold")

    @cached_property
    def validation(self) -> ValidationPredictions | None:
        """The predictions on the validation images; None if the bundle does not have them."""
        fields = self.metrics.get("predictions")
        return None if fields is None else ValidationPredictions.from_fields(fields)

    @cached_property
    def model_version(self) -> ModelVersion:
        """The name and the version number."""
        return ModelVersion(self.name, self.version)

    @cached_property
    def resource(self) -> str:
        """The name of this version in the API: models/NAME/versions/VERSION."""
        return self.model_version.resource

    def to_json(self) -> str:
        fields = asdict(self)
        if not self.engines:
            del fields["engines"]  # earlier releases do not know the field
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse a manifest.

        Raises:
            BundleError: naming the field that is missing, unknown or out of range.
        """
        try:
            fields = json.loads(text)
            _check_format(fields["format"])  # first, because another format has other fields
            fields["temperatures"] = {int(views): float(t) for views, t in fields["temperatures"].items()}
            fields["preprocess"] = Preprocess(**fields["preprocess"])
            fields["artifacts"] = tuple(Artifact(**artifact) for artifact in fields["artifacts"])
            fields["engines"] = tuple(EngineFile(**engine) for engine in fields.get("engines", ()))
            fields["classes"] = tuple(map(str, fields["classes"]))
            for name in ("mean", "std"):
                fields[name] = tuple(map(float, fields[name]))
            return cls(**fields)
        except KeyError as error:
            raise BundleError(f"{MANIFEST} has no {error.args[0]!r}") from error
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise BundleError(f"{MANIFEST}: {error}") from error


def _check_format(number: int) -> None:
    if number != FORMAT:
        raise ValueError(
            f"format is {number}; this pawserve reads format {FORMAT}: export the run again with python -m export "
            "bundle, or install the pawserve that made it"
        )


def _is_probability(value: object) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1


@dataclass(frozen=True)
class Bundle:
    """The folder of a model version, whose manifest has been read."""

    folder: Path
    manifest: Manifest

    def artifact(self, precision: Precision, runtime: Runtime = "onnxruntime") -> Artifact:
        """Find the artifact of one precision that a runtime uses.

        Raises:
            BundleError: if there is none; the message lists those that exist.
        """
        wanted = runtime if precision == "int8" else "onnxruntime"
        for artifact in self.manifest.artifacts:
            if (artifact.precision, artifact.runtime) == (precision, wanted):
                return artifact
        present = ", ".join(f"{artifact.precision} ({artifact.runtime})" for artifact in self.manifest.artifacts)
        target = "int8-trt" if wanted == "tensorrt" else precision
        raise BundleError(
            f"{self.folder} has no {precision} artifact for {wanted}; it has {present}: export it with --precisions "
            f"{target}"
        )

    def read(self, artifact: Artifact | EngineFile) -> bytes:
        """Read the file of an artifact or an engine, and check its size and SHA-256.

        Raises:
            BundleError: if the file is missing, or not the one that the manifest describes.
        """
        path = self.folder / artifact.file
        try:
            size = path.stat().st_size
            if size != artifact.bytes:
                raise BundleError(
                    f"{path} has {size:,} bytes, and {MANIFEST} says {artifact.bytes:,}: copy the bundle again"
                )
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        if (sha256 := hashlib.sha256(content).hexdigest()) != artifact.sha256:
            raise BundleError(
                f"{path} has SHA-256 {sha256[:12]}…, expected {artifact.sha256[:12]}… by {MANIFEST}: "
                "it was changed after the export. Export or copy the bundle again"
            )
        return content


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest. Its files are checked when they are read.

    Raises:
        BundleError: if the folder holds no manifest, or an invalid one.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} has no {MANIFEST}; a bundle is a folder models/NAME/VERSION written by `python -m export bundle`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read: {error}") from error
    return Bundle(folder, Manifest.from_json(text))
