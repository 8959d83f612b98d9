"""A model folder in; a checked Bundle out. What a bundle says about itself, and the proof that it is whole.

`models/NAME/VERSION/` holds `model.json` (the manifest) and the files that it lists, each with its size and SHA-256.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.bundle.model_version import ModelVersion, check_name
from serving.image.preprocess import Preprocess

FORMAT = 1
MANIFEST = "model.json"
INPUT_NAME = "images"
"""The graph's input: uint8 `[N, crop, crop, 3]`, RGB."""
OUTPUT_NAME = "probabilities"
"""The graph's output: float32 `[N, K]`, rows that sum to 1."""

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "tensorrt"]
"""Whom a file is for. ONNX Runtime's can be built into a TensorRT engine too, except INT8, which has one file each."""

_FILE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BundleError(ValueError):
    """A folder that is no bundle, or one whose parts do not agree; the message says which part, and why."""


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
    """fp16 and INT8: which layers stayed float32; INT8: on how many images it was calibrated, and how."""
    parity: dict[str, Any] = field(default_factory=dict)
    """How it agrees with the trained network: what was compared, on how many images, with what result."""

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
    """Normalisation of RGB in 0-1, for the reader: it is inside the graph."""
    temperature: float
    """What the logits were divided by before softmax, for the reader: it is inside the graph."""
    artifacts: tuple[Artifact, ...]
    metrics: dict[str, Any]
    """Accuracy, nll, brier, ece with n and 95% intervals, on the validation images."""
    fingerprints: dict[str, str]
    """SHA-256 of the recipe, the data and the trained weights that it came from."""
    versions: dict[str, str]
    """Releases of the libraries that made it."""
    adaptive: dict[str, Any] = field(default_factory=dict)
    """Adaptive requests evaluate more views if the first view's highest probability is below `threshold`; the rest
    is for the reader: for how many `views` it was chosen, and the `mean_views` and `agreement` on `photos`. Empty:
    no threshold was chosen."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format is {self.format}; this pawserve reads format {FORMAT}")
        check_name(self.name)
        if self.version < 1:
            raise ValueError(f"version is {self.version}; versions count from 1")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes are {list(self.classes)[:10]}; at least two different names are needed")
        if not self.artifacts:
            raise ValueError("it lists no artifact")
        threshold = self.adaptive_threshold
        if threshold is not None and not _is_share(threshold):
            raise ValueError(f"the adaptive threshold is {threshold!r}; it must be a probability, 0 to 1")
        accuracy = self.metrics.get("accuracy")
        ends = ("value", "lower", "upper")
        if accuracy is not None and not (isinstance(accuracy, dict) and all(_is_share(accuracy.get(e)) for e in ends)):
            raise ValueError(f"metrics.accuracy is {accuracy!r}; it must have value, lower and upper, each 0 to 1")

    @property
    def adaptive_threshold(self) -> float | None:
        """First-view probability from which adaptive requests evaluate no other view; None: they evaluate all."""
        return self.adaptive.get("threshold")

    @property
    def model_version(self) -> ModelVersion:
        """The name and the version number."""
        return ModelVersion(self.name, self.version)

    @property
    def resource(self) -> str:
        """The name of this version in the API: models/NAME/versions/VERSION."""
        return self.model_version.resource

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse a manifest.

        Raises:
            BundleError: naming the field that is missing, unknown or out of range.
        """
        try:
            fields = json.loads(text)
            fields["preprocess"] = Preprocess(**fields["preprocess"])
            fields["artifacts"] = tuple(Artifact(**artifact) for artifact in fields["artifacts"])
            fields["classes"] = tuple(map(str, fields["classes"]))
            for name in ("mean", "std"):
                fields[name] = tuple(map(float, fields[name]))
            return cls(**fields)
        except KeyError as error:
            raise BundleError(f"{MANIFEST} has no {error.args[0]!r}") from error
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise BundleError(f"{MANIFEST}: {error}") from error


def _is_share(value: object) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1


@dataclass(frozen=True)
class Bundle:
    """A model folder whose manifest has been read."""

    folder: Path
    manifest: Manifest

    def artifact(self, precision: Precision, runtime: Runtime = "onnxruntime") -> Artifact:
        """The artifact of one precision that a runtime uses.

        Raises:
            BundleError: if there is none, with those that there are.
        """
        wanted = runtime if precision == "int8" else "onnxruntime"
        for artifact in self.manifest.artifacts:
            if (artifact.precision, artifact.runtime) == (precision, wanted):
                return artifact
        present = ", ".join(f"{artifact.precision} ({artifact.runtime})" for artifact in self.manifest.artifacts)
        raise BundleError(f"{self.folder} has no {precision} artifact for {wanted}; it has {present}")

    def read(self, artifact: Artifact) -> bytes:
        """An artifact's bytes, checked: what is returned is what was hashed.

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
                f"{path} has SHA-256 {sha256[:12]}…, and {MANIFEST} says {artifact.sha256[:12]}…: "
                "it was changed after the export. Export or copy the bundle again"
            )
        return content


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest; its files are checked when they are read.

    Raises:
        BundleError: if the folder holds no manifest, or one that cannot be used.
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
