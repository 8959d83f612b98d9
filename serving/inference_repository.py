"""The repository calls of Triton's clients in; what the model watcher makes of them out."""

import grpc

from serving.bundle import BundleError
from serving.errors import ApiError, invalid
from serving.model_watcher import ModelWatcher
from serving.pb.inference import open_inference_pb2 as pb
from serving.repository import ModelNotFound, State, VersionStatus, parse_resource

_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.REFUSED: "UNAVAILABLE",
}
_MAX_SHOWN = 100


def check_repository(name: str) -> None:
    """Raises ApiError for the name of another repository than the only one."""
    if name:
        raise invalid("PARAMETER_INVALID", "there is one repository; leave repository_name empty", "repository_name")


def to_index(status: VersionStatus) -> pb.RepositoryIndexResponse.ModelIndex:
    """One version, served or not."""
    return pb.RepositoryIndexResponse.ModelIndex(
        name=status.name, version=str(status.version), state=_STATES[status.state], reason=status.reason
    )


async def load(watcher: ModelWatcher, request: pb.RepositoryModelLoadRequest) -> None:
    """Serve a model.

    Raises:
        ApiError: if there is none of that name, or it cannot be used.
    """
    check_repository(request.repository_name)
    name = _name(request.model_name)
    if request.parameters:
        given = next(iter(request.parameters))[:_MAX_SHOWN]
        raise invalid("PARAMETER_INVALID", f"parameter {given!r} is not known; there are none", "parameters")
    try:
        await watcher.load(name)
    except ModelNotFound as error:
        raise _not_found(f"the repository holds no model {name}") from error
    except BundleError as error:
        raise ApiError(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_REFUSED", str(error), field="model_name") from error


async def unload(watcher: ModelWatcher, request: pb.RepositoryModelUnloadRequest) -> None:
    """Serve a model no longer.

    Raises:
        ApiError: if it is not served.
    """
    check_repository(request.repository_name)
    name = _name(request.model_name)
    try:
        await watcher.unload(name)
    except ModelNotFound as error:
        raise _not_found(f"no model {name} is served; unload takes a name without a version") from error


def _name(name: str) -> str:
    """A model's NAME or NAME/VERSION; raises ApiError for anything else."""
    try:
        parse_resource("models/" + name.replace("/", "/versions/", 1))
    except ValueError as error:
        message = f"{name[:_MAX_SHOWN]!r} is no model; write NAME or NAME/VERSION"
        raise invalid("MODEL_NAME_INVALID", message, "model_name") from error
    return name


def _not_found(message: str) -> ApiError:
    return ApiError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", message, field="model_name")
