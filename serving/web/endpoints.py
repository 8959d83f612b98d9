"""What happens around each HTTP request: request ID, observers, access control, errors.

The same steps as those of gRPC's interceptors, with the same `AccessControl` and observers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.access import AccessControl
from serving.api.errors import ApiError, Code, to_api_error
from serving.context import CURRENT_CALL, CURRENT_CLIENT, Call, HttpExchange, choose_request_id
from serving.observability.observers import CallObserver
from serving.web.compression import compress
from serving.web.problems import problem_response

CERTIFICATE_NAMES = "pawserve.certificate_names"
"""Key of the scope: the names of the client's certificate."""
TIMED_OUT = "pawserve.timed_out"
"""Key of the scope: returns whether the request was cancelled because its body did not arrive in time."""
REQUEST_ID = "x-request-id"

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class EndpointContext:
    """Access control and observers of all endpoints."""

    access: AccessControl
    observers: Sequence[CallObserver]


class Endpoint:
    """Answers the requests of one method and path; an ASGI application.

    Args:
        context: access control and observers.
        name: for metrics, traces and the access log, such as "POST /v1/classify".
        call: the gRPC method whose role it needs, such as "/pawserve.v1.Classifier/Classify".
        handler: answers a request, or raises.
    """

    def __init__(self, context: EndpointContext, name: str, call: str, handler: Handler) -> None:
        self._context = context
        self._name = name
        self._call = call
        self._handler = handler
        self._repeat_as_error = "/v2" in name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        metadata: dict[str, str | bytes] = {**request.headers}
        call = Call(self._name, choose_request_id(metadata.get(REQUEST_ID)))
        call.http = _exchange(scope)
        CURRENT_CALL.set(call)
        for observer in self._context.observers:
            observer.began(call, metadata)
        code = "CANCELLED"
        try:
            response, code = await self._answer(request, call)
            call.http.status = response.status_code
            response.headers[REQUEST_ID] = call.request_id
            await response(scope, receive, send)
        except ClientDisconnect:
            code = "CANCELLED"
        except asyncio.CancelledError:
            code = "CANCELLED"
            if not scope.get(TIMED_OUT, bool)():
                return  # the client has gone, and no result is needed
            code = Code.DEADLINE_EXCEEDED.name
            message = "the body of the request did not arrive in time; send it at once and faster"
            response = self._problem(ApiError(Code.DEADLINE_EXCEEDED, "BODY_TIMEOUT", message), call)
            call.http.status = response.status_code
            await response(scope, receive, send)
        finally:
            seconds = call.elapsed_s()
            for observer in self._context.observers:
                observer.ended(call, code, seconds)

    async def _answer(self, request: Request, call: Call) -> tuple[Response, str]:
        """The response, and the name of the canonical code."""
        access = self._context.access
        try:
            client = access.find_by_token(self._call, request.headers.getlist("authorization"))
            names = request.scope.get(CERTIFICATE_NAMES, ()) if access.client_certificates else ()
            CURRENT_CLIENT.set(access.identify(self._call, client, peer_of(request.scope), names))
            response = await self._handler(request)
            compress(response, request.headers)
        except ClientDisconnect:
            raise
        except Exception as error:
            failure = to_api_error(error)
            return self._problem(failure, call), failure.code.name
        return response, "OK"

    def _problem(self, error: ApiError, call: Call) -> Response:
        response = problem_response(error, call.request_id, repeat_as_error=self._repeat_as_error)
        response.headers[REQUEST_ID] = call.request_id
        return response


def _exchange(scope: Scope) -> HttpExchange:
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    return HttpExchange(scope["scheme"], scope["path"], scope["http_version"], client[0], server[1] or 0)


def peer_of(scope: Mapping[str, object]) -> str:
    """The client's address as gRPC writes it."""
    client = scope.get("client")
    if not isinstance(client, tuple):
        return "unix:"
    host, port = client
    return f"ipv6:{quote(f'[{host}]', safe='')}:{port}" if ":" in host else f"ipv4:{host}:{port}"
