"""Classification in this process, without a server: of a bundle by its engine, of a run by the trained network."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path

import grpc

from serving.api.errors import to_api_error
from serving.bundle.folder import open_newest
from serving.bundle.manifest import BundleError
from serving.cli.errors import CommandError
from serving.cli.prediction.files import FileResult, read_file
from serving.client import ClientError, Prediction
from serving.image.decode import OWN_IMAGE_LIMITS
from serving.models.loader import ServingOptions, load_model

RUN_FILE = "run.json"
GROUP = 16
"""Files that are read and classified together."""


@dataclass(frozen=True)
class LocalModel:
    """A model in this process."""

    name: str
    """What results name: the version's resource name, or the folder of a run."""
    classes: tuple[str, ...]
    classify: Callable[[Sequence[bytes]], list[tuple[Sequence[float], int] | Exception]]
    """Encoded images -> the probabilities of each, in the order of `classes`, and the views they are averaged over."""


@contextmanager
def open_local(folder: Path, *, views: int | None, adaptive: bool) -> Iterator[LocalModel]:
    """Open models/NAME/VERSION, models/NAME for its promoted or newest version, or a run, until the block ends.

    Args:
        views: views of each image to average; None for 1, or what the export chose if adaptive.

    Raises:
        CommandError: if it cannot be loaded, or a run is asked for adaptive TTA.
    """
    if (folder / RUN_FILE).is_file():
        if adaptive:
            raise CommandError(
                "--adaptive needs a threshold, which export chooses: use --views, or the exported bundle"
            )
        try:
            classify, classes = import_module("training.predict").open_classifier(folder, views or 1, OWN_IMAGE_LIMITS)
        except ModuleNotFoundError as error:
            raise CommandError(
                f"{folder} is a run, and the package {error.name} is missing: pip install 'pawserve[training]'"
            ) from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        yield LocalModel(str(folder), classes, classify)
        return
    try:
        bundle = open_newest(folder)
        count = views or (bundle.manifest.adaptive_views if adaptive else 1)
        model = load_model(bundle, ServingOptions(max_rows=max(1024, GROUP * count), limits=OWN_IMAGE_LIMITS))
    except BundleError as error:
        raise CommandError(str(error)) from error

    def classify_group(images: Sequence[bytes]) -> list[tuple[Sequence[float], int] | Exception]:
        outcomes = asyncio.run(model.classifier.classify(images, count, adaptive=adaptive))
        return [
            each if isinstance(each, Exception) else (each.probabilities_K.tolist(), each.views) for each in outcomes
        ]

    with closing(model):
        yield LocalModel(model.manifest.resource, model.manifest.classes, classify_group)


def classify_locally(
    model: LocalModel, files: Iterable[Path], *, references: Mapping[Path, str], top_k: int | None
) -> Iterator[FileResult]:
    """Classify files, in their order. Predictions have no token, since labels are recorded on servers."""
    remaining = iter(files)
    while group := list(islice(remaining, GROUP)):
        contents: list[bytes | Exception] = []
        for file in group:
            try:
                contents.append(read_file(file, OWN_IMAGE_LIMITS.max_bytes))
            except (OSError, ValueError) as error:
                contents.append(error)
        images = [each for each in contents if isinstance(each, bytes)]
        outcomes = iter(model.classify(images) if images else [])
        for file, content in zip(group, contents, strict=True):
            outcome = next(outcomes) if isinstance(content, bytes) else content
            yield replace(_to_result(model, file, outcome, top_k), reference=references.get(file, ""))


def _to_result(
    model: LocalModel, file: Path, outcome: tuple[Sequence[float], int] | Exception, top_k: int | None
) -> FileResult:
    if isinstance(outcome, Exception):
        if isinstance(outcome, OSError) or type(outcome) is ValueError:
            return FileResult(file, model.name, outcome)
        failure = to_api_error(outcome)
        code = grpc.StatusCode[failure.code.name]
        return FileResult(file, model.name, ClientError(code, failure.reason, failure.message))
    probabilities, views = outcome
    ranked = sorted(zip(model.classes, probabilities, strict=True), key=lambda each: -each[1])
    return FileResult(file, model.name, Prediction(tuple(ranked[:top_k]), "", views))
