"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

from importlib.metadata import version
from typing import Any

from serving.api.access import KNOWN, NEEDS, OPEN
from serving.context import Role
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.web.open_inference.schemas import SCHEMAS
from serving.web.openapi.schemas import reference, schemas_of

CLASSIFIER = "/pawserve.v1.Classifier"
INFERENCE = "/inference.GRPCInferenceService"
PROBLEM = "Problem"
_MESSAGES = (
    pb.ClassifyRequest,
    pb.ClassifyResponse,
    pb.RecordLabelsRequest,
    pb.RecordLabelsResponse,
    pb.ListModelsResponse,
    pb.GetStatisticsResponse,
    pb.WatchStatisticsResponse,
    pb.GetComparisonResponse,
)
_STATUSES = {
    "400": "The request is invalid; reason and field say why.",
    "401": "The server requires a token, and the client sent none, or an unknown one.",
    "403": "The client lacks a role, or the page's origin is not allowed.",
    "404": "The model or version is not served.",
    "408": "The body did not arrive in time.",
    "413": "The body or an image is too large.",
    "415": "The content type, the encoding or the image's format is not supported.",
    "429": "Too much is in flight. Nothing was begun: retry after the time in Retry-After.",
    "500": "The server failed.",
    "503": "The server is stopping, or its statistics or memory are not available now.",
    "504": "The request's timeout has passed.",
}
_READS_NO_BODY = ("400", "401", "403", "404", "500", "503")
_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The model's name.",
}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
    "description": "The version's number.",
}
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}


def openapi_document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pawserve",
            "version": version("pawserve"),
            "summary": "Classify images, record their labels, and read the statistics.",
            "description": "The same calls as over gRPC. Errors are problem details (RFC 9457) with stable reasons.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "pawserve", "description": "Images, labels, models and statistics."},
            {"name": "Open Inference Protocol", "description": "The API of KServe and Triton."},
        ],
        "paths": {**_pawserve_paths(), **_inference_paths()},
        "components": {
            "schemas": {**schemas_of(*(each.DESCRIPTOR for each in _MESSAGES)), **SCHEMAS, PROBLEM: _problem()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "headers": {
                "RetryAfter": {"description": "Seconds until a retry may succeed.", "schema": {"type": "integer"}}
            },
        },
    }


def _pawserve_paths() -> dict[str, Any]:
    model = _query("model", "models/NAME or models/NAME/versions/N; unset: the only model, or all.", {"type": "string"})
    how = [
        model,
        _query("views", "Views of each image to average over; unset: 1.", {"type": "integer", "minimum": 1}),
        _query("top_k", "Most classes to return; unset: all.", {"type": "integer", "minimum": 1}),
        _query("adaptive", "More views only if the first is uncertain.", {"type": "boolean"}),
        _query("reference", "The client's own name of the image that is the body.", {"type": "string"}),
        _query("filenames", "The file names of a form are the references of its images.", {"type": "boolean"}),
        _query(
            "timeout", "Seconds after which the response is no longer needed.", {"type": "string", "examples": ["1.5s"]}
        ),
    ]
    time = {"type": "string", "format": "date-time"}
    window = [
        model,
        _query("start_time", "Only predictions made at this time or later.", time),
        _query("end_time", "Only predictions made before this time.", time),
    ]
    interval = _query(
        "min_interval", "Shortest time between two events; unset: 1s.", {"type": "string", "examples": ["2s"]}
    )
    images = {
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}}
        },
        "application/json": {"schema": reference(pb.ClassifyRequest.DESCRIPTOR)},
    }
    labels = {"application/json": {"schema": reference(pb.RecordLabelsRequest.DESCRIPTOR)}}
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    manifest = {"application/json": {"schema": {"type": "object"}}}
    return {
        "/v1/classify": _operation(
            "post", "Classify", "Classify an image, or several.", pb.ClassifyResponse, parameters=how, body=images
        ),
        "/v1/labels": _operation(
            "post", "RecordLabels", "Record the labels of predictions.", pb.RecordLabelsResponse, body=labels
        ),
        "/v1/models": _operation("get", "ListModels", "List the model versions.", pb.ListModelsResponse),
        "/v1/models/{name}/versions/{version}/manifest": _operation(
            "get",
            "ListModels",
            "Read a version's model.json.",
            manifest,
            parameters=[_NAME, _VERSION],
            operation="GetManifest",
        ),
        "/v1/models/{name}/versions/{version}/report": _operation(
            "get",
            "ListModels",
            "Read the report of a version's training, if its bundle has one.",
            {"text/html": {"schema": {"type": "string"}}},
            parameters=[_NAME, _VERSION],
            operation="GetReport",
        ),
        "/v1/statistics": _operation(
            "get",
            "GetStatistics",
            "Read the confusion matrix and metrics.",
            pb.GetStatisticsResponse,
            parameters=window,
        ),
        "/v1/comparison": _operation(
            "get",
            "GetComparison",
            "Compare the accuracy of two versions of a model.",
            pb.GetComparisonResponse,
            parameters=[
                _query("first", "models/NAME/versions/N.", {"type": "string"}),
                _query("second", "Another version of the same model.", {"type": "string"}),
                *window[1:],
            ],
        ),
        "/v1/statistics/watch": _operation(
            "get",
            "WatchStatistics",
            "Watch the statistics: events named statistics, each with a WatchStatisticsResponse.",
            events,
            parameters=[model, interval],
        ),
    }


def _inference_paths() -> dict[str, Any]:
    def get(call: str, summary: str, response: str, parameters: Any = (), operation: str = "") -> dict[str, Any]:
        return _inference("get", call, summary, response, parameters=parameters, operation=operation)

    paths = {
        "/v2": get("ServerMetadata", "Describe the server.", "ServerMetadata"),
        "/v2/health/live": get("ServerLive", "Whether the server lives.", "ServerLive"),
        "/v2/health/ready": get("ServerReady", "Whether a model is served; 400 if not.", "ServerReady"),
        "/v2/models/stats": get("ModelStatistics", "Read the work of all models.", "InferenceStatistics"),
        "/v2/repository/index": _inference(
            "post", "RepositoryIndex", "List the model versions.", "RepositoryIndex", body="RepositoryIndexRequest"
        ),
    }
    for verb in ("load", "unload"):
        paths[f"/v2/repository/models/{{name}}/{verb}"] = _inference(
            "post",
            f"RepositoryModel{verb.title()}",
            f"{verb.title()} a model.",
            "Empty",
            parameters=[_NAME],
            body="RepositoryModelRequest",
        )
    for suffix, parameters in (("", [_NAME]), ("/versions/{version}", [_NAME, _VERSION])):
        path, of = f"/v2/models/{{name}}{suffix}", "Version" if suffix else ""
        paths |= {
            path: get("ModelMetadata", "Describe inputs and outputs.", "ModelMetadata", parameters, f"{of}Metadata"),
            f"{path}/ready": get(
                "ModelReady", "Whether it is served; 400 if not.", "ModelReady", parameters, f"{of}Ready"
            ),
            f"{path}/config": get(
                "ModelConfig", "Read the model's configuration.", "ModelConfig", parameters, f"{of}Config"
            ),
            f"{path}/stats": get(
                "ModelStatistics", "Read the model's work.", "InferenceStatistics", parameters, f"{of}Statistics"
            ),
            f"{path}/infer": _inference(
                "post",
                "ModelInfer",
                "Classify images as tensors.",
                "InferResponse",
                parameters=parameters,
                body="InferRequest",
                operation=f"{of}Infer",
            ),
        }
    return paths


def _inference(
    method: str, call: str, summary: str, response: str, *, parameters: Any = (), body: str = "", operation: str = ""
) -> dict[str, Any]:
    def json_of(name: str) -> dict[str, Any]:
        content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        return {**content, "application/octet-stream": {"schema": _BINARY}} if name.startswith("Infer") else content

    if call == "ModelInfer":
        header = "Bytes of the JSON that precedes binary tensors."
        length = {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer"}}
        parameters = [*parameters, {**length, "description": header}]
    return _operation(
        method,
        call,
        summary,
        json_of(response),
        parameters=parameters,
        body=json_of(body) if body else None,
        service=INFERENCE,
        operation=operation,
        body_required=call == "ModelInfer",
    )


def _operation(
    method: str,
    call: str,
    summary: str,
    response: Any,
    *,
    parameters: Any = (),
    body: dict[str, Any] | None = None,
    service: str = CLASSIFIER,
    operation: str = "",
    body_required: bool = True,
) -> dict[str, Any]:
    needed = NEEDS[f"{service}/{call}"]
    content = (
        response if isinstance(response, dict) else {"application/json": {"schema": reference(response.DESCRIPTOR)}}
    )
    problem = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}}}
    statuses = _STATUSES if body else {status: _STATUSES[status] for status in _READS_NO_BODY}
    failures: dict[str, Any] = {status: {"description": text, "content": problem} for status, text in statuses.items()}
    for status in failures.keys() & {"429", "503"}:
        failures[status]["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    described: dict[str, Any] = {
        "operationId": operation or call,
        "summary": summary,
        "tags": ["pawserve" if service == CLASSIFIER else "Open Inference Protocol"],
        "description": _describe_role(needed),
        "security": [{}] if needed == OPEN else [{"token": []}, {}],
        "responses": {"200": {"description": "The result.", "content": content}, **failures},
    }
    if parameters:
        described["parameters"] = [*parameters]
    if body:
        described["requestBody"] = {"required": body_required, "content": body}
    return {method: described}


def _describe_role(needed: str) -> str:
    if needed == OPEN:
        return "Needs no credentials."
    role = "any role" if needed == KNOWN else f"the role {Role(needed)}"
    return f"Where the server knows its clients, it needs a token with {role}."


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _problem() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Problem details, RFC 9457.",
        "required": ["type", "title", "status", "detail", "code", "reason"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "For people; may change between releases."},
            "code": {"type": "string", "description": "The canonical code, such as INVALID_ARGUMENT."},
            "reason": {"type": "string", "description": "For programs; does not change between releases."},
            "field": {"type": "string", "description": "The field of the request that caused it."},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "retry_after_s": {"type": "number"},
            "request_id": {"type": "string"},
            "error": {"type": "string", "description": "The same as detail; below /v2 only."},
        },
    }
