"""JSON schemas of the Open Inference Protocol over REST."""

from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_TEXT: dict[str, Any] = {"type": "string"}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_LIST: dict[str, Any] = {"type": "array"}
_SHAPE = {"type": "array", "items": _INTEGER}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}}
_DESCRIBED = {"type": "array", "items": _object(name=_TEXT, datatype=_TEXT, shape=_SHAPE)}
_TENSOR = {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE, "parameters": _PARAMETERS, "data": _LIST}
_DURATION = _object(count=_INTEGER, ns=_INTEGER)

SCHEMAS: dict[str, dict[str, Any]] = {
    "Empty": _object(),
    "ServerMetadata": _object(name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT}),
    "ServerLive": _object(live=_BOOLEAN),
    "ServerReady": _object(ready=_BOOLEAN),
    "ModelReady": _object(name=_TEXT, ready=_BOOLEAN),
    "ModelMetadata": _object(
        name=_TEXT, versions={"type": "array", "items": _TEXT}, platform=_TEXT, inputs=_DESCRIBED, outputs=_DESCRIBED
    ),
    "ModelConfig": {**_object(name=_TEXT, platform=_TEXT, max_batch_size=_INTEGER), "additionalProperties": True},
    "InferenceStatistics": _object(
        model_stats={
            "type": "array",
            "items": _object(
                name=_TEXT,
                version=_TEXT,
                last_inference=_INTEGER,
                inference_count=_INTEGER,
                execution_count=_INTEGER,
                inference_stats=_object(success=_DURATION, fail=_DURATION),
            ),
        }
    ),
    "RepositoryIndexRequest": _object(ready=_BOOLEAN),
    "RepositoryIndex": {
        "type": "array",
        "items": _object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT),
    },
    "RepositoryModelRequest": _object(parameters=_PARAMETERS),
    "InferRequest": {
        **_object(
            id=_TEXT,
            parameters=_PARAMETERS,
            inputs={"type": "array", "items": _object(**_TENSOR), "minItems": 1, "maxItems": 1},
            outputs={"type": "array", "items": _object(name=_TEXT, parameters=_PARAMETERS)},
        ),
        "required": ["inputs"],
    },
    "InferResponse": _object(
        model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs={"type": "array", "items": _object(**_TENSOR)}
    ),
}
