"""The endpoints below /v2."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serving.api.errors import ApiError, invalid
from serving.api.open_inference.inference import InferenceCalls
from serving.pb.inference import open_inference_pb2 as pb
from serving.web.bodies import BodyLimits, read_body, run_large
from serving.web.messages import json_response, parse_json, to_plain
from serving.web.open_inference.tensors import parse_request, typed, write_response

JSON_BYTES = "inference-header-content-length"
"""Header: the bytes of JSON before binary tensors."""
EXTENSION = "binary_tensor_data"


class InferenceEndpoints:
    """Answers the requests below /v2.

    Args:
        calls: answer the same requests over gRPC.
        limits: of bodies.
        stopping: whether the server is about to stop.
    """

    def __init__(self, calls: InferenceCalls, limits: BodyLimits, stopping: Callable[[], bool]) -> None:
        self._calls = calls
        self._limits = limits
        self._stopping = stopping

    async def server_metadata(self, request: Request) -> Response:
        """GET /v2."""
        metadata = to_plain(self._calls.server_metadata())
        return _json({**metadata, "extensions": [*metadata["extensions"], EXTENSION]})

    async def live(self, request: Request) -> Response:
        """GET /v2/health/live."""
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        """GET /v2/health/ready."""
        ready = self._calls.server_ready() and not self._stopping()
        return _json({"ready": ready}, ready)

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/M[/versions/V]/ready."""
        name, version = _model(request)
        ready = await self._calls.model_ready(name, version)
        return _json({"name": name, "ready": ready}, ready)

    async def model_metadata(self, request: Request) -> Response:
        """GET /v2/models/M[/versions/V]."""
        return _json(to_plain(self._calls.model_metadata(*_model(request))))

    async def model_config(self, request: Request) -> Response:
        """GET /v2/models/M[/versions/V]/config."""
        return _json(to_plain(self._calls.model_config(*_model(request)).config))

    async def statistics(self, request: Request) -> Response:
        """GET /v2/models/stats and /v2/models/M[/versions/V]/stats."""
        return _json(to_plain(self._calls.model_statistics(*_model(request))))

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/M[/versions/V]/infer."""
        name, version = _model(request)
        async with read_body(request, self._limits) as body:
            parsed = await run_large(len(body), parse_request, body, request.headers.get(JSON_BYTES))
            del body
            message = parsed.message
            message.model_name, message.model_version = name, version
            try:
                response = await self._calls.infer(message, None, parsed.raws, typed=True)
            except ApiError as error:
                raise _in_terms_of_json(error) from error
        content, json_bytes = write_response(response, parsed.binary)
        if json_bytes is None:
            return json_response(content)
        return Response(content, headers={JSON_BYTES: str(json_bytes)}, media_type="application/octet-stream")

    async def repository_index(self, request: Request) -> Response:
        """POST /v2/repository/index."""
        content = await self._read_object(request)
        ready = content.get("ready", False)
        if not isinstance(ready, bool):
            raise invalid("PARAMETER_INVALID", "ready must be true or false", "ready")
        index = await self._calls.repository_index(pb.RepositoryIndexRequest(ready=ready))
        return json_response(json.dumps(to_plain(index)["models"], ensure_ascii=False).encode())

    async def load(self, request: Request) -> Response:
        """POST /v2/repository/models/M/load."""
        content = await self._read_object(request)
        message = pb.RepositoryModelLoadRequest(model_name=request.path_params["name"])
        for name in typed(content.get("parameters") or {}, dict, "parameters"):
            message.parameters[name].string_param = ""  # all of them are rejected, by name
        await self._calls.load(message)
        return _json({})

    async def unload(self, request: Request) -> Response:
        """POST /v2/repository/models/M/unload; no model depends on another, so its parameters have no effect."""
        await self._read_object(request)
        await self._calls.unload(pb.RepositoryModelUnloadRequest(model_name=request.path_params["name"]))
        return _json({})

    async def _read_object(self, request: Request) -> dict[str, Any]:
        """The JSON object that is the body; empty if there is none."""
        async with read_body(request, self._limits) as body:
            content = parse_json(body or b"{}")
        if not isinstance(content, dict):
            raise invalid("MESSAGE_INVALID", "the body is not a JSON object", "")
        return content


def _model(request: Request) -> tuple[str, str]:
    """Name and version in the path; "" where it has none."""
    return request.path_params.get("name", ""), request.path_params.get("version", "")


def _json(content: dict[str, Any], success: bool = True) -> Response:
    """JSON; status 400 stands for "no" where the protocol asks a question."""
    return Response(json.dumps(content, ensure_ascii=False), 200 if success else 400, media_type="application/json")


def _in_terms_of_json(error: ApiError) -> ApiError:
    """The same error, with the name that REST has for a field of gRPC."""
    error.message = error.message.replace("raw_input_contents[0]", "the data of inputs[0]")
    error.field = error.field.replace("raw_input_contents", "inputs[0].data")
    error.field = error.field.replace("contents.bytes_contents", "data")
    return error
