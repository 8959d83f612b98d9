"""The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

from functools import partial
from importlib.metadata import version
from typing import Any

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.web.open_inference.schemas import SCHEMAS
from serving.web.openapi.operations import INFERENCE, PROBLEM, operation, parameter, problem_schema
from serving.web.openapi.schemas import reference, schemas_of

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
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 1}
_TIME = {"type": "string", "format": "date-time"}
_NAME = parameter("path", "name", "The model's name.", _TEXT)
_VERSION = parameter("path", "version", "The version's number.", {"type": "string", "pattern": "^[1-9][0-9]*$"})
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
            "schemas": {**schemas_of(*(each.DESCRIPTOR for each in _MESSAGES)), **SCHEMAS, PROBLEM: problem_schema()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "headers": {
                "RetryAfter": {"description": "Seconds until a retry may succeed.", "schema": {"type": "integer"}}
            },
        },
    }


def _pawserve_paths() -> dict[str, Any]:
    query = partial(parameter, "query")
    model = query("model", "models/NAME or models/NAME/versions/N; unset: the only model, or all.", _TEXT)
    how = [
        model,
        query("views", "Views of each image to average over; unset: 1.", _COUNT),
        query("top_k", "Most classes to return; unset: all.", _COUNT),
        query("adaptive", "More views only if the first is uncertain.", {"type": "boolean"}),
        query("reference", "The client's own name of the image that is the body.", _TEXT),
        query("filenames", "The file names of a form are the references of its images.", {"type": "boolean"}),
        query("timeout", "Seconds after which the response is no longer needed.", {**_TEXT, "examples": ["1.5s"]}),
    ]
    window = [
        query("start_time", "Only predictions made at this time or later.", _TIME),
        query("end_time", "Only predictions made before this time.", _TIME),
    ]
    versions = [
        query("first", "models/NAME/versions/N.", _TEXT),
        query("second", "Another version of the same model.", _TEXT),
    ]
    interval = query("min_interval", "Shortest time between two events; unset: 1s.", {**_TEXT, "examples": ["2s"]})
    images = {
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}}
        },
        "application/json": {"schema": reference(pb.ClassifyRequest.DESCRIPTOR)},
    }
    labels = {"application/json": {"schema": reference(pb.RecordLabelsRequest.DESCRIPTOR)}}
    events = {"text/event-stream": {"schema": _TEXT}}
    report = {"text/html": {"schema": _TEXT}}
    manifest = {"application/json": {"schema": {"type": "object"}}}
    get, post = partial(operation, "get"), partial(operation, "post")
    of_version = partial(get, "ListModels", parameters=[_NAME, _VERSION])
    return {
        "/v1/classify": post(
            "Classify", "Classify an image, or several.", pb.ClassifyResponse, parameters=how, body=images
        ),
        "/v1/labels": post("RecordLabels", "Record the labels of predictions.", pb.RecordLabelsResponse, body=labels),
        "/v1/models": get("ListModels", "List the model versions.", pb.ListModelsResponse),
        "/v1/models/{name}/versions/{version}/manifest": of_version(
            "Read a version's model.json.", manifest, name="GetManifest"
        ),
        "/v1/models/{name}/versions/{version}/report": of_version(
            "Read the report of a version's training, if its bundle has one.", report, name="GetReport"
        ),
        "/v1/statistics": get(
            "GetStatistics",
            "Read the confusion matrix and metrics.",
            pb.GetStatisticsResponse,
            parameters=[model, *window],
        ),
        "/v1/comparison": get(
            "GetComparison",
            "Compare the accuracy of two versions of a model.",
            pb.GetComparisonResponse,
            parameters=[*versions, *window],
        ),
        "/v1/statistics/watch": get(
            "WatchStatistics",
            "Watch the statistics: events named statistics, each with a WatchStatisticsResponse.",
            events,
            parameters=[model, interval],
        ),
    }


def _inference_paths() -> dict[str, Any]:
    paths = {
        "/v2": _inference("get", "ServerMetadata", "Describe the server."),
        "/v2/health/live": _inference("get", "ServerLive", "Whether the server lives."),
        "/v2/health/ready": _inference("get", "ServerReady", "Whether a model is served; 400 if not."),
        "/v2/models/stats": _inference("get", "ModelStatistics", "Read the work of all models.", "InferenceStatistics"),
        "/v2/repository/index": _inference(
            "post", "RepositoryIndex", "List the model versions.", body="RepositoryIndexRequest"
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
    for path, of, parameters in (
        ("/v2/models/{name}", "", [_NAME]),
        ("/v2/models/{name}/versions/{version}", "Version", [_NAME, _VERSION]),
    ):
        get, post = (partial(_inference, method, parameters=parameters) for method in ("get", "post"))
        stats, infer = "Read the model's work.", "Classify images as tensors."
        paths |= {
            path: get("ModelMetadata", "Describe inputs and outputs.", name=f"{of}Metadata"),
            f"{path}/ready": get("ModelReady", "Whether it is served; 400 if not.", name=f"{of}Ready"),
            f"{path}/config": get("ModelConfig", "Read the model's configuration.", name=f"{of}Config"),
            f"{path}/stats": get("ModelStatistics", stats, "InferenceStatistics", name=f"{of}Statistics"),
            f"{path}/infer": post("ModelInfer", infer, "InferResponse", body="InferRequest", name=f"{of}Infer"),
        }
    return paths


def _inference(
    method: str, call: str, summary: str, response: str = "", *, parameters: Any = (), body: str = "", name: str = ""
) -> dict[str, Any]:
    """An operation; the schema of its response is named like the call unless `response` names one."""

    def json_of(schema: str) -> dict[str, Any]:
        content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        return {**content, "application/octet-stream": {"schema": _BINARY}} if schema.startswith("Infer") else content

    if call == "ModelInfer":
        text = "Bytes of the JSON that precedes binary tensors."
        length = parameter("header", "Inference-Header-Content-Length", text, {"type": "integer"})
        parameters = [*parameters, length]
    return operation(
        method,
        call,
        summary,
        json_of(response or call),
        parameters=parameters,
        body=json_of(body) if body else None,
        service=INFERENCE,
        name=name,
        body_required=call == "ModelInfer",
    )
