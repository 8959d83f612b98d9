"""Puts the HTTP server together."""

from collections.abc import Callable, Sequence

from serving.api.access import AccessControl
from serving.api.in_flight import BytesInFlight
from serving.api.open_inference.inference import InferenceCalls
from serving.api.pawserve.classifier import ClassifierCalls
from serving.observability.observers import CallObserver
from serving.web.app import make_app
from serving.web.bodies import BodyLimits
from serving.web.browsers import Origins
from serving.web.endpoints import Gate
from serving.web.http_server import HttpServer
from serving.web.open_inference.endpoints import InferenceEndpoints
from serving.web.openapi.page import documentation_routes
from serving.web.pawserve.endpoints import ClassifierEndpoints
from serving.web.settings import HttpLimits


def make_http_server(
    listen: str,
    origins: Sequence[str],
    limits: HttpLimits,
    *,
    access: AccessControl,
    observers: Sequence[CallObserver],
    classifier: ClassifierCalls,
    inference: InferenceCalls,
    stopping: Callable[[], bool],
) -> HttpServer:
    """The HTTP server of one server, which does not listen yet.

    Args:
        listen: the address that it will listen on.
        origins: of pages that may call it.
        limits: of connections and bodies.
        access: decides which client may make which call.
        observers: of calls.
        classifier: answers below /v1.
        inference: answers below /v2.
        stopping: whether the server is about to stop.

    Raises:
        ValueError: if an origin is malformed.
    """
    bodies = BodyLimits(limits.max_body_bytes, BytesInFlight(limits.max_bodies_bytes))
    app = make_app(
        Gate(access, observers),
        ClassifierEndpoints(classifier, bodies),
        InferenceEndpoints(inference, bodies, stopping),
        Origins(listen, origins),
        documentation_routes(),
    )
    return HttpServer(app, limits)
