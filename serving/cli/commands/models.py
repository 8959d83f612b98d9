"""`models`: list the model versions of a server."""

import argparse
from collections.abc import Iterator
from typing import Any

from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import DONE
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.output import print_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `models`."""
    parser.description = (
        "List the model versions of a server, also those that failed to load, with their states and why they are in "
        "them, engines and layouts."
    )
    add_client_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    with open_client(arguments) as client:
        models = client.list_models()
    if arguments.json:
        print_json({"models": [_to_dict(model) for model in models]}, indent=2)
    else:
        print("\n".join(line for model in models for line in _lines(model)) or "no models")
    return DONE


def state_of(model: pb.Model) -> str:
    """LOADING, READY, DRAINING or FAILED."""
    name = pb.ModelState.Name(model.state).removeprefix("MODEL_STATE_")
    return "FAILED" if name == "REFUSED" else name


def _lines(model: pb.Model) -> Iterator[str]:
    shadow = f"  SHADOW of {model.shadow_share:.4g} of the requests" if model.HasField("shadow_share") else ""
    yield f"{model.name}  {state_of(model)}{'  PRIMARY' * model.primary}{shadow}"
    if model.state_reason:
        yield f"  reason    {model.state_reason}"
    if model.engine:
        yield f"  engine    {model.precision}, {model.runtime}: {model.engine_reason}"
        yield f"  layout    {_layout(model.plan)}"
        yield f"  classes   {len(model.classes):,}"
        yield f"  views     {_views(model)}"


def _views(model: pb.Model) -> str:
    default, recommended = model.default_views, model.recommended_views
    described = f"{default} by default, at most {model.max_views}"
    if recommended != default:
        described += f"; {recommended} recommended by the bundle (`serve --views recommended`)"
    if model.HasField("adaptive_threshold"):
        described += f"; adaptive: {model.adaptive_views} below a confidence of {model.adaptive_threshold:.1%}"
    return described


def _layout(layout: pb.EnginePlan) -> str:
    described = f"{layout.instances} x {layout.threads} threads, batches of at most {layout.max_batch_size}"
    if layout.lone_threads:
        described += f", {layout.lone_threads} threads for single requests"
    if layout.HasField("rows_per_second"):
        described += f"; measured: {layout.rows_per_second:,.0f} views/s"
    return described


def _to_dict(model: pb.Model) -> dict[str, Any]:
    described = {
        "name": model.name,
        "state": state_of(model),
        "reason": model.state_reason,
        "primary": model.primary,
        "shadow_share": model.shadow_share if model.HasField("shadow_share") else None,
    }
    if not model.engine:
        return described
    layout = model.plan
    return described | {
        "arch": model.arch,
        "classes": list(model.classes),
        "views": {
            "default": model.default_views,
            "recommended": model.recommended_views,
            "adaptive": model.adaptive_views,
            "most": model.max_views,
        },
        "precision": model.precision,
        "runtime": model.runtime,
        "engine_reason": model.engine_reason,
        "layout": {
            "instances": layout.instances,
            "threads": layout.threads,
            "max_batch_size": layout.max_batch_size,
            "single_row_threads": layout.lone_threads,
            "views_per_second": layout.rows_per_second if layout.HasField("rows_per_second") else None,
        },
    }
