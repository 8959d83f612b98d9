"""A folder models/NAME/VERSION in; the model versions that are served out, warm and found by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.batcher import DynamicBatcher
from serving.bundle import NAME_PATTERN, Bundle, BundleError, Manifest, Precision, open_bundle
from serving.classifier import Classifier
from serving.decode import Limits
from serving.engine import Engine, Plan, choose_precision, load_engines
from serving.observer import ObserverOf

_VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")
_RESOURCE_PATTERN = re.compile(
    rf"models/(?P<name>{NAME_PATTERN.pattern})(/versions/(?P<version>{_VERSION_PATTERN.pattern}))?"
)


class ModelNotFound(LookupError):
    """A well-formed name of a model or version that is not served; the message lists those that are."""


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How models are loaded and what their requests may cost."""

    plan: Plan
    precision: Precision | None
    """None: what a CPU runs fastest, of what the bundle has."""
    workers: int
    """Threads that decode pictures and run engines."""
    max_rows: int
    """Most views in flight, for each model."""
    limits: Limits
    observer_of: ObserverOf | None = None
    """Makes what hears of each version's work; None if nobody listens."""


@dataclass(frozen=True)
class ServedModel:
    """One version, ready to answer. Immutable: another version is another object."""

    manifest: Manifest
    engine: str
    """What computes it, for people."""
    classifier: Classifier
    class_index: Mapping[str, int]
    """Class name -> index in the network's output."""


class Repository:
    """The versions that are served."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int], ServedModel] = {}

    def add(self, model: ServedModel) -> None:
        """Serve one more version."""
        self._models[model.manifest.name, model.manifest.version] = model

    @property
    def models(self) -> list[ServedModel]:
        """All versions, ordered by name and version."""
        return [self._models[key] for key in sorted(self._models)]

    def find(self, name: str, version: int | None) -> ServedModel:
        """A version, or the newest one.

        Raises:
            ModelNotFound: if it is not served.
        """
        versions = [key for key in self._models if key[0] == name and version in (None, key[1])]
        if not versions:
            asked = f"models/{name}" if version is None else f"models/{name}/versions/{version}"
            served = ", ".join(model.manifest.resource for model in self.models)
            raise ModelNotFound(f"{asked} is not served here; there is {served}")
        return self._models[max(versions)]

    def close(self) -> None:
        """Compute what is in flight, then stop all engines."""
        for model in self._models.values():
            model.classifier.close()


def parse_resource(resource: str) -> tuple[str, int | None]:
    """Name and version of "models/NAME" (version None) or "models/NAME/versions/VERSION".

    Raises:
        ValueError: for anything else.
    """
    match = _RESOURCE_PATTERN.fullmatch(resource)
    if match is None:
        raise ValueError(f"{resource[:100]!r} is no model name; write models/NAME or models/NAME/versions/VERSION")
    return match["name"], int(match["version"]) if match["version"] else None


def find_bundles(folder: Path, wanted: Sequence[str]) -> list[Bundle]:
    """The bundles to serve.

    Args:
        folder: holds NAME/VERSION/model.json.
        wanted: "NAME" for its newest version, or "NAME/VERSION"; empty for the newest version of every name.

    Raises:
        BundleError: if one is missing, or cannot be used; or there is none at all.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder; name the one that holds NAME/VERSION/model.json with --models")
    names = wanted or sorted(path.name for path in folder.iterdir() if _versions(path))
    if not names:
        raise BundleError(f"{folder} holds no model; `python -m export bundle` writes one to NAME/VERSION")
    return [_open(folder, name) for name in dict.fromkeys(names)]


def load_model(bundle: Bundle, options: ServingOptions) -> ServedModel:
    """Load one bundle, and compute the smallest and the largest batch once, so that no caller waits for that.

    Raises:
        BundleError: if its parts do not agree, or the model does not compute what it should.
    """
    manifest = bundle.manifest
    precision = options.precision or choose_precision(manifest)
    engines = load_engines(bundle, precision, options.plan)
    for engine in engines:
        _warm_up(engine, bundle)
    observer = options.observer_of(manifest) if options.observer_of else None
    batcher = DynamicBatcher(engines, workers=options.workers, max_rows=options.max_rows, observer=observer)
    return ServedModel(
        manifest,
        f"{precision}, onnxruntime cpu, {options.plan}",
        Classifier(manifest.preprocess, batcher, options.limits, observer=observer),
        {name: index for index, name in enumerate(manifest.classes)},
    )


def _versions(folder: Path) -> list[int]:
    if not (NAME_PATTERN.fullmatch(folder.name) and folder.is_dir()):
        return []
    return [int(path.name) for path in folder.iterdir() if _VERSION_PATTERN.fullmatch(path.name) and path.is_dir()]


def _open(folder: Path, wanted: str) -> Bundle:
    name, _, version = wanted.partition("/")
    if not NAME_PATTERN.fullmatch(name) or (version and not _VERSION_PATTERN.fullmatch(version)):
        raise BundleError(f"{wanted!r} is no model; write NAME or NAME/VERSION")
    versions = _versions(folder / name)
    if not versions:
        raise BundleError(f"{folder} holds no version of {name}")
    bundle = open_bundle(folder / name / (version or str(max(versions))))
    manifest = bundle.manifest
    if bundle.folder.parts[-2:] != (manifest.name, str(manifest.version)):
        raise BundleError(f"{bundle.folder} holds {manifest.resource}; the folders must be named as the manifest says")
    return bundle


def _warm_up(engine: Engine, bundle: Bundle) -> None:
    crop, classes = bundle.manifest.preprocess.crop, len(bundle.manifest.classes)
    for rows in (1, engine.max_batch_size):
        try:
            probabilities_NK = engine.run(np.full((rows, crop, crop, 3), 127, np.uint8))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise BundleError(f"{bundle.folder}: a batch of {rows} cannot be computed: {error}") from error
        sums_N = probabilities_NK.sum(axis=1)
        if probabilities_NK.shape != (rows, classes) or not np.allclose(sums_N, 1, atol=0.01):
            raise BundleError(
                f"{bundle.folder}: a batch of {rows} gives {probabilities_NK.shape} with sums {sums_N}, "
                f"expected ({rows}, {classes}) with rows that sum to 1"
            )
