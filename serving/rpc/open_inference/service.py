"""The methods of `inference.GRPCInferenceService`, with the same images and tokens as `pawserve.v1`."""

from importlib.metadata import version

import grpc

from serving.bundle.manifest import BundleError
from serving.bundle.model_version import parse_resource, parse_short_name, resource_name
from serving.models.control import ModelControl
from serving.models.loader import ServedModel
from serving.models.repository import ModelNotFound, State
from serving.pb.inference import open_inference_pb2 as pb
from serving.pb.inference import open_inference_pb2_grpc as pb_grpc
from serving.rpc.api_errors import ApiError, Code, invalid, to_api_error
from serving.rpc.classification import ClassificationService, ClassifySpec
from serving.rpc.errors import map_errors
from serving.rpc.open_inference.inputs import MAX_SHOWN, parse_images
from serving.rpc.open_inference.outputs import (
    PLATFORM,
    parse_outputs,
    to_config,
    to_metadata,
    to_statistics,
    write_outputs,
)
from serving.rpc.open_inference.parameters import FINAL_RESPONSE, WANTS_FINAL_RESPONSE, Parameters
from serving.rpc.streaming import StreamProcessor

EXTENSIONS = ("classification", "model_configuration", "model_repository", "parameters", "statistics")
_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.FAILED: "UNAVAILABLE",
}


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """The service, as its .proto file documents it.

    Args:
        models: what is served, and loads and unloads it.
        classification: classifies images.
        streams: runs the streams.
        max_pixels: most pixels of one image.
    """

    def __init__(
        self,
        models: ModelControl,
        classification: ClassificationService,
        streams: StreamProcessor,
        max_pixels: int,
    ) -> None:
        self._models = models
        self._repository = models.repository
        self._classification = classification
        self._streams = streams
        self._max_pixels = max_pixels

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
            model = self._find(request.name, request.version)
        except ApiError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=await self._models.is_ready(model.manifest.model_version))

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
        _check_repository(request.repository_name)
        models = [
            pb.RepositoryIndexResponse.ModelIndex(
                name=status.version.name,
                version=str(status.version.version),
                state=_STATES[status.state],
                reason=status.reason,
            )
            for status in await self._models.statuses()
            if status.state is State.READY or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=models)

    @map_errors
    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        _check_repository(request.repository_name)
        name = _check_model_name(request.model_name)
        if request.parameters:
            given = next(iter(request.parameters))[:MAX_SHOWN]
            raise invalid("PARAMETER_INVALID", f"parameter {given!r} is not known; give none", "parameters")
        try:
            await self._models.load(name)
        except ModelNotFound as error:
            raise _model_not_found(f"the repository holds no model {name}") from error
        except BundleError as error:
            raise ApiError(Code.FAILED_PRECONDITION, "MODEL_REFUSED", str(error), field="model_name") from error
        return pb.RepositoryModelLoadResponse()

    @map_errors
    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.aio.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        _check_repository(request.repository_name)
        name = _check_model_name(request.model_name)
        try:
            await self._models.unload(name)
        except ModelNotFound as error:
            message = f"no model {name} is served; give the name of a served model, without a version"
            raise _model_not_found(message) from error
        return pb.RepositoryModelUnloadResponse()

    @map_errors
    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        return await self._infer(request, context, wait=False)

    @map_errors
    async def ModelStreamInfer(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        await self._streams.run(context, self)

    def image_bytes(self, request: pb.ModelInferRequest) -> int:
        """Bytes of a request of a stream; nearly all of them are its images."""
        return int(request.ByteSize())

    async def respond(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelStreamInferResponse:
        """The response to one request of a stream, with the error if there is one."""
        message = ""
        try:
            response = await self._infer(request, context, wait=True)
        except Exception as error:
            failure = to_api_error(error)
            response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            message = f"{failure.reason}: {failure.message}"
        if WANTS_FINAL_RESPONSE in request.parameters:
            response.parameters[FINAL_RESPONSE].bool_param = True  # each request has exactly one response
        return pb.ModelStreamInferResponse(error_message=message, infer_response=response)

    def _find(self, name: str, version_: str) -> ServedModel:
        try:
            return self._repository.find(*parse_resource(resource_name(name, version_)))
        except ModelNotFound as error:
            raise to_api_error(error, "model_name") from error
        except ValueError as error:
            message = f"{name[:MAX_SHOWN]!r}, version {version_[:MAX_SHOWN]!r}, is not a model; "
            message += "give a name, and a version from 1 or none"
            raise invalid("MODEL_NAME_INVALID", message, "model_name") from error

    async def _infer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext, *, wait: bool
    ) -> pb.ModelInferResponse:
        parameters = Parameters.parse(request)
        outputs = parse_outputs(request)

        def check() -> ClassifySpec:
            model = self._find(request.model_name, request.model_version)
            return self._classification.check(model, parameters.views, parameters.top_k, parameters.adaptive)

        spec = check()
        images = parse_images(request, self._max_pixels)
        timeout_s = parameters.limit_timeout(context.time_remaining())
        if wait:
            spec, outcomes = await self._classification.compute_waiting(check, images, timeout_s)
        else:
            outcomes = await self._classification.compute(spec, images, timeout_s)
        classifications = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failure = to_api_error(outcome, f"inputs[0] image {index}")
                failure.message = f"image {index}: {failure.message}"
                raise failure
            classifications.append(outcome)
        # the protocol has no response for a part of the images, so predictions count only if all images have one
        signed = [self._classification.sign(spec, each) for each in classifications]
        manifest = spec.model.manifest
        response = pb.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.version), id=request.id)
        write_outputs(response, outputs, spec, signed, raw=bool(request.raw_input_contents))
        return response


def _check_repository(name: str) -> None:
    if name:
        raise invalid("PARAMETER_INVALID", "there is one repository; leave repository_name empty", "repository_name")


def _check_model_name(name: str) -> str:
    """NAME or NAME/VERSION; raises ApiError for anything else."""
    try:
        parse_short_name(name)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), "model_name") from error
    return name


def _model_not_found(message: str) -> ApiError:
    return ApiError(Code.NOT_FOUND, "MODEL_NOT_FOUND", message, field="model_name")
