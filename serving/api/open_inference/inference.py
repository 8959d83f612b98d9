"""The calls of the Open Inference Protocol, for all transports, with the same images and tokens as `pawserve.v1`."""

from collections.abc import Sequence
from importlib.metadata import version

from serving.api.classification import ClassificationService
from serving.api.errors import ApiError, Code, invalid, to_api_error
from serving.api.open_inference.inputs import MAX_SHOWN, parse_images
from serving.api.open_inference.outputs import (
    PLATFORM,
    parse_outputs,
    to_config,
    to_metadata,
    to_statistics,
    write_outputs,
)
from serving.api.open_inference.parameters import FINAL_RESPONSE, WANTS_FINAL_RESPONSE, Parameters
from serving.api.predictions import ClassifySpec
from serving.bundle.manifest import BundleError
from serving.bundle.model_version import parse_resource, parse_short_name, resource_name
from serving.models.control import ModelControl
from serving.models.loader import ServedModel
from serving.models.repository import ModelNotFound, State
from serving.pb.inference import open_inference_pb2 as pb

EXTENSIONS = ("classification", "model_configuration", "model_repository", "parameters", "statistics")
_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.FAILED: "UNAVAILABLE",
}


class InferenceCalls:
    """Answers requests as the .proto file documents them. Exceptions are for `to_api_error`.

    Args:
        models: what is served, and loads and unloads it.
        classification: classifies images.
        max_pixels: most pixels of one image.
    """

    def __init__(
        self,
        models: ModelControl,
        classification: ClassificationService,
        max_pixels: int,
    ) -> None:
        self._models = models
        self._repository = models.repository
        self._classification = classification
        self._max_pixels = max_pixels

    def server_ready(self) -> bool:
        """Whether a model is served."""
        return bool(self._repository.models)

    async def model_ready(self, name: str, version_: str) -> bool:
        """Whether the model, or this version of it, is served."""
        try:
            model = self._find(name, version_)
        except ApiError:
            return False
        return await self._models.is_ready(model.manifest.model_version)

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions."""
        return pb.ServerMetadataResponse(name=PLATFORM, version=version("pawserve"), extensions=EXTENSIONS)

    def model_metadata(self, name: str, version_: str) -> pb.ModelMetadataResponse:
        """The inputs and outputs of a model; raises ApiError if it is not served."""
        model = self._find(name, version_)
        served = (other.manifest for other in self._repository.models)
        return to_metadata(model, [other.version for other in served if other.name == name])

    def model_config(self, name: str, version_: str) -> pb.ModelConfigResponse:
        """The same in the form that Triton's clients need; raises ApiError if it is not served."""
        return pb.ModelConfigResponse(config=to_config(self._find(name, version_)))

    def model_statistics(self, name: str, version_: str) -> pb.ModelStatisticsResponse:
        """The work of a model, or of all if the name is empty; raises ApiError if it is not served."""
        if name:
            self._find(name, version_)
        models = [model for model in self._repository.models if name in ("", model.manifest.name)]
        models = [model for model in models if version_ in ("", str(model.manifest.version))]
        return pb.ModelStatisticsResponse(model_stats=map(to_statistics, models))

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """All model versions and their states; only those that are served if `ready` is set."""
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

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load a model, or check for its newest version; raises ApiError if that fails."""
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

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; raises ApiError if it is not served."""
        _check_repository(request.repository_name)
        name = _check_model_name(request.model_name)
        try:
            await self._models.unload(name)
        except ModelNotFound as error:
            message = f"no model {name} is served; give the name of a served model, without a version"
            raise _model_not_found(message) from error
        return pb.RepositoryModelUnloadResponse()

    async def infer(
        self,
        request: pb.ModelInferRequest,
        timeout_s: float | None,
        raws: Sequence[bytes | memoryview] | None = None,
        *,
        typed: bool = False,
    ) -> pb.ModelInferResponse:
        """Classify the images of a request.

        Args:
            raws: its `raw_input_contents`; None if they are in the request.
            typed: write the outputs in typed contents also where the inputs are in `raw_input_contents`.
        """
        return await self._infer(request, timeout_s, raws, wait=False, typed=typed)

    async def infer_in_stream(
        self, request: pb.ModelInferRequest, timeout_s: float | None, raws: Sequence[bytes | memoryview] | None = None
    ) -> pb.ModelStreamInferResponse:
        """The response to one request of a stream, with the error if there is one; does not raise."""
        message = ""
        try:
            response = await self._infer(request, timeout_s, raws, wait=True)
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
        self,
        request: pb.ModelInferRequest,
        timeout_s: float | None,
        raws: Sequence[bytes | memoryview] | None,
        *,
        wait: bool,
        typed: bool = False,
    ) -> pb.ModelInferResponse:
        raws = request.raw_input_contents if raws is None else raws
        parameters = Parameters.parse(request)
        outputs = parse_outputs(request)

        def check() -> ClassifySpec:
            model = self._find(request.model_name, request.model_version)
            return self._classification.check(model, parameters.views, parameters.top_k, parameters.adaptive)

        spec = check()
        images = parse_images(request, raws, self._max_pixels)
        timeout_s = parameters.limit_timeout(timeout_s)
        if wait:
            spec, outcomes = await self._classification.compute_waiting(check, images, timeout_s)
        else:
            outcomes = await self._classification.compute(spec, images, timeout_s)
        classifications = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                self._classification.discard(outcomes)
                failure = to_api_error(outcome, f"inputs[0] image {index}")
                failure.message = f"image {index}: {failure.message}"
                raise failure
            classifications.append(outcome)
        # the protocol has no response for a part of the images, so predictions count only if all images have one
        signed = [self._classification.sign(spec, each) for each in classifications]
        manifest = spec.model.manifest
        response = pb.ModelInferResponse(model_name=manifest.name, model_version=str(manifest.version), id=request.id)
        write_outputs(response, outputs, spec, signed, raw=bool(raws) and not typed)
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
