"""The repository calls of Triton's clients in; what the model watcher makes of them out.

inference.GRPCInferenceService: the Open Inference Protocol beside pawserve.v1, with the same pictures and tokens.
"""

from importlib.metadata import version

import grpc

from serving.bundle.manifest import BundleError
from serving.bundle.model_version import parse_resource, parse_short_name, resource_name
from serving.image.decode import Limits
from serving.models.repository import ModelNotFound, ModelRepository, ServedModel, State, VersionStatus
from serving.models.watcher import ModelWatcher
from serving.pb.inference import open_inference_pb2 as pb
from serving.pb.inference import open_inference_pb2_grpc as pb_grpc
from serving.rpc.classification import ClassificationService, ClassifySpec
from serving.rpc.errors import ApiError, invalid, map_errors, to_api_error
from serving.rpc.open_inference.inputs import read_pictures
from serving.rpc.open_inference.outputs import (
    PLATFORM,
    read_wanted,
    to_config,
    to_metadata,
    to_statistics,
    write_outputs,
)
from serving.rpc.open_inference.parameters import FINAL_RESPONSE, WANTS_FINAL_RESPONSE, Parameters
from serving.rpc.streaming import StreamProcessor

_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.FAILED: "UNAVAILABLE",
}
_MAX_SHOWN = 100


def check_repository(name: str) -> None:
    """Raises ApiError for the name of another repository than the only one."""
    if name:
        raise invalid("PARAMETER_INVALID", "there is one repository; leave repository_name empty", "repository_name")


def to_index(status: VersionStatus) -> pb.RepositoryIndexResponse.ModelIndex:
    """One version, served or not."""
    return pb.RepositoryIndexResponse.ModelIndex(
        name=status.version.name,
        version=str(status.version.version),
        state=_STATES[status.state],
        reason=status.reason,
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
        parse_short_name(name)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), "model_name") from error
    return name


def _not_found(message: str) -> ApiError:
    return ApiError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", message, field="model_name")


EXTENSIONS = ("classification", "model_configuration", "model_repository", "parameters", "statistics")


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The service, as its .proto file documents it."""

    def __init__(
        self,
        repository: ModelRepository,
        watcher: ModelWatcher,
        pictures: ClassificationService,
        pipelines: StreamProcessor,
        limits: Limits,
    ) -> None:
        self._repository = repository
        self._watcher = watcher
        self._pictures = pictures
        self._pipelines = pipelines
        self._limits = limits

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=bool(self._repository.models))

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        try:
            self._find(request.name, request.version)
        except ApiError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=PLATFORM, version=version("pawserve"), extensions=EXTENSIONS)

    @map_errors
    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        model = self._find(request.name, request.version)
        served = (other.manifest for other in self._repository.models)
        return to_metadata(model, [other.version for other in served if other.name == request.name])

    @map_errors
    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=to_config(self._find(request.name, request.version)))

    @map_errors
    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        if request.name:
            self._find(request.name, request.version)
        models = [model for model in self._repository.models if request.name in ("", model.manifest.name)]
        models = [model for model in models if request.version in ("", str(model.manifest.version))]
        return pb.ModelStatisticsResponse(model_stats=map(to_statistics, models))

    @map_errors
    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        check_repository(request.repository_name)
        statuses = [status for status in self._repository.statuses if status.model or not request.ready]
        return pb.RepositoryIndexResponse(models=map(to_index, statuses))

    @map_errors
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        await load(self._watcher, request)
        return pb.RepositoryModelLoadResponse()

    @map_errors
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        await unload(self._watcher, request)
        return pb.RepositoryModelUnloadResponse()

    @map_errors
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        return await self._infer(request, context, wait=False)

    @map_errors
    async def ModelStreamInfer(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._pipelines.run(context, self)

    def size(self, request: pb.ModelInferRequest) -> int:
        """Bytes of its tensors."""
        return int(request.ByteSize())

    async def answer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelStreamInferResponse:
        """One answer of a stream; whatever is wrong with its request is its error message."""
        try:
            response = await self._infer(request, context, wait=True)
        except Exception as error:
            failure = to_api_error(error)
            response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            message = f"{failure.reason}: {failure.message}"
        else:
            message = ""
        if WANTS_FINAL_RESPONSE in request.parameters:
            response.parameters[FINAL_RESPONSE].bool_param = True  # each request has one answer
        return pb.ModelStreamInferResponse(error_message=message, infer_response=response)

    def _find(self, name: str, version_: str) -> ServedModel:
        try:
            return self._repository.find(*parse_resource(resource_name(name, version_)))
        except ModelNotFound as error:
            raise to_api_error(error, "model_name") from error
        except ValueError as error:
            message = f"{name[:100]!r}, version {version_[:100]!r}, is no model; versions are numbers from 1"
            raise invalid("MODEL_NAME_INVALID", message, "model_name") from error

    async def _infer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext, *, wait: bool
    ) -> pb.ModelInferResponse:
        parameters = Parameters.read(request)
        wanted = read_wanted(request)

        def check() -> ClassifySpec:
            model = self._find(request.model_name, request.model_version)
            return self._pictures.ask(model, parameters.views, parameters.top_k, parameters.adaptive)

        asked = check()
        pictures = read_pictures(request, self._limits.max_pixels)
        timeout_s = parameters.shorten(context.time_remaining())
        if wait:
            asked, outcomes = await self._pictures.compute_waiting(check, pictures, timeout_s)
        else:
            outcomes = await self._pictures.classify(asked, pictures, timeout_s)
        averaged = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failure = to_api_error(outcome, f"inputs[0] picture {index}")
                failure.message = f"picture {index}: {failure.message}"
                raise failure
            averaged.append(outcome)
        # only now: the protocol has no answer for some of the pictures, so none is counted unless all are answered
        issued = [self._pictures.issue(asked, each) for each in averaged]
        manifest = asked.model.manifest
        response = pb.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.version), id=request.id)
        write_outputs(response, wanted, asked, issued, raw=bool(request.raw_input_contents))
        return response
