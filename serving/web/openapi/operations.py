"""Operations of the OpenAPI document, with the errors and roles that all of them have."""

from typing import Any

from serving.api.access import KNOWN, NEEDS, OPEN
from serving.context import Role
from serving.web.openapi.schemas import reference

CLASSIFIER = "/pawserve.v1.Classifier"
INFERENCE = "/inference.GRPCInferenceService"
PROBLEM = "Problem"
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


def operation(
    method: str,
    call: str,
    summary: str,
    response: Any,
    *,
    parameters: Any = (),
    body: dict[str, Any] | None = None,
    service: str = CLASSIFIER,
    name: str = "",
    body_required: bool = True,
) -> dict[str, Any]:
    """One operation of a path.

    Args:
        method: of HTTP, in lower case.
        call: the gRPC method whose role it needs.
        summary: what it does.
        response: the message of the response, or the content by media type.
        parameters: of the path and the query.
        body: the content of the request by media type; None if it reads no body.
        service: the gRPC service of `call`.
        name: the operation's ID; the name of `call` if empty.
        body_required: whether a request without a body is an error.
    """
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
        "operationId": name or call,
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
    return f"If clients are configured, it needs a token with {role}."


def parameter(place: str, name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter of the path, which is required, of the query, or in a header."""
    described = {"name": name, "in": place, "description": text, "schema": schema}
    return {**described, "required": True} if place == "path" else described


def problem_schema() -> dict[str, Any]:
    """The schema of an error."""
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
