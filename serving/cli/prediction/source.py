"""What classifies the files of `predict`: a server, or a model in this process."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.cli.connection import open_client
from serving.cli.errors import CommandError, UsageError
from serving.cli.prediction.files import FileResult, classify_files
from serving.client import ClientError

MANIFEST, RUN_FILE = "model.json", "run.json"
"""Files of a bundle and of a run."""


def is_local(model: str) -> bool:
    """Whether a --model names a folder with a bundle, with versions of one, or with a run."""
    if not model:
        return False
    folder = Path(model).expanduser()
    return any((folder / name).is_file() for name in (MANIFEST, RUN_FILE)) or any(folder.glob(f"[0-9]*/{MANIFEST}"))


@dataclass(frozen=True)
class Source:
    """What classifies: a server, or a model in this process."""

    classes: Sequence[str]
    """Classes in the order of the network's output; empty if the server does not serve the model."""
    classify: Callable[[Sequence[Path]], Iterator[FileResult]]


@contextmanager
def open_source(arguments: argparse.Namespace, references: Mapping[Path, str]) -> Iterator[Source]:
    """What classifies by the options of `predict`, until the block ends.

    Args:
        arguments: the options.
        references: the own name of each file, which labels are exported with.

    Raises:
        UsageError: if the options do not fit together.
        ClientError: if the server cannot be reached.
    """
    if is_local(arguments.model):
        if arguments.label:
            raise UsageError("--label records labels at a server; leave it out with a folder as --model")
        from serving.cli.prediction.local import classify_locally, open_local  # loads ONNX Runtime

        folder = Path(arguments.model).expanduser()
        with open_local(folder, views=arguments.views, adaptive=arguments.adaptive) as model:
            classify = partial(classify_locally, model, references=references, top_k=arguments.top_k)
            yield Source(model.classes, classify)
        return
    with open_client(arguments) as client:
        try:
            listed = client.list_models()  # fails at once if the server is unreachable
        except ClientError as error:
            if not arguments.model:
                raise
            note = f"{arguments.model} is the name of a model there; a folder with a bundle or a run was not found here"
            raise CommandError(f"{error.message}; {note}") from error
        served = [model for model in listed if _is_meant(model.name, arguments.model)]
        classify = partial(
            classify_files,
            client,
            references=references,
            label=arguments.label,
            streams=max(1, len(arguments.server.split(","))),
            model=arguments.model,
            views=arguments.views,
            top_k=arguments.top_k,
            adaptive=arguments.adaptive,
        )
        yield Source(served[0].classes if served else (), classify)


def _is_meant(served: str, asked: str) -> bool:
    return not asked or served == asked or served.startswith(f"{asked}/versions/")
