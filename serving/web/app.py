"""The ASGI application: which endpoint answers which request."""

from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.access import AccessControl
from serving.api.errors import ApiError, Code, invalid
from serving.api.in_flight import BytesInFlight
from serving.api.open_inference.inference import InferenceCalls
from serving.api.pawserve.classifier import ClassifierCalls
from serving.context import Call, choose_request_id
from serving.observability.observers import CallObserver
from serving.web.bodies import BodyLimits
from serving.web.browsers import Origins, cors_headers, preflight, with_headers
from serving.web.endpoints import REQUEST_ID, Endpoint, EndpointContext, Handler
from serving.web.open_inference.endpoints import InferenceEndpoints
from serving.web.openapi.page import documentation_routes
from serving.web.pawserve.endpoints import ClassifierEndpoints
from serving.web.problems import problem_response
from serving.web.settings import HttpLimits
from serving.web.static_files import read_static_files

CLASSIFIER = "/pawserve.v1.Classifier"
INFERENCE = "/inference.GRPCInferenceService"
NO_SNIFFING = [(b"x-content-type-options", b"nosniff")]

Table = Sequence[tuple[str, str, str, Handler]]


def make_app(
    listen: str,
    origins: Sequence[str],
    limits: HttpLimits,
    *,
    access: AccessControl,
    observers: Sequence[CallObserver],
    classifier: ClassifierCalls,
    inference: InferenceCalls,
    stopping: Callable[[], bool],
) -> ASGIApp:
    """The application.

    Args:
        listen: the address that the server will listen on.
        origins: of pages that may call it.
        limits: of bodies.
        access: decides which client may make which call.
        observers: of calls.
        classifier: answers below /v1.
        inference: answers below /v2.
        stopping: whether the server is about to stop.

    Raises:
        ValueError: if an origin is malformed.
    """
    context = EndpointContext(access, observers)
    bodies = BodyLimits(limits.max_body_bytes, BytesInFlight(limits.max_bodies_bytes))
    table = endpoint_table(ClassifierEndpoints(classifier, bodies), InferenceEndpoints(inference, bodies, stopping))
    routes = [
        Route(path, Endpoint(context, f"{method} {path}", call, handler), methods=[method], name=path)
        for method, path, call, handler in table
    ]
    routes += [Route(path, file.respond) for path, file in read_static_files().items()]
    routes += documentation_routes()
    return _Application(Router(routes, redirect_slashes=False), Origins(listen, origins), context)


def endpoint_table(classifier: ClassifierEndpoints, inference: InferenceEndpoints) -> Table:
    """Method, path, the gRPC method whose role it needs, and what answers."""
    of_model = [
        entry
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        for entry in (
            ("POST", f"{path}/infer", f"{INFERENCE}/ModelInfer", inference.infer),
            ("GET", path, f"{INFERENCE}/ModelMetadata", inference.model_metadata),
            ("GET", f"{path}/ready", f"{INFERENCE}/ModelReady", inference.model_ready),
            ("GET", f"{path}/config", f"{INFERENCE}/ModelConfig", inference.model_config),
            ("GET", f"{path}/stats", f"{INFERENCE}/ModelStatistics", inference.statistics),
        )
    ]
    return (
        ("POST", "/v1/classify", f"{CLASSIFIER}/Classify", classifier.classify),
        ("POST", "/v1/labels", f"{CLASSIFIER}/RecordLabels", classifier.record_labels),
        ("GET", "/v1/models", f"{CLASSIFIER}/ListModels", classifier.list_models),
        ("GET", "/v1/models/{name}/versions/{version}/manifest", f"{CLASSIFIER}/ListModels", classifier.get_manifest),
        ("GET", "/v1/models/{name}/versions/{version}/report", f"{CLASSIFIER}/ListModels", classifier.get_report),
        ("GET", "/v1/statistics", f"{CLASSIFIER}/GetStatistics", classifier.get_statistics),
        ("GET", "/v1/comparison", f"{CLASSIFIER}/GetComparison", classifier.get_comparison),
        ("GET", "/v1/statistics/watch", f"{CLASSIFIER}/WatchStatistics", classifier.watch_statistics),
        ("GET", "/v2", f"{INFERENCE}/ServerMetadata", inference.server_metadata),
        ("GET", "/v2/health/live", f"{INFERENCE}/ServerLive", inference.live),
        ("GET", "/v2/health/ready", f"{INFERENCE}/ServerReady", inference.ready),
        ("GET", "/v2/models/stats", f"{INFERENCE}/ModelStatistics", inference.statistics),
        ("POST", "/v2/repository/index", f"{INFERENCE}/RepositoryIndex", inference.repository_index),
        ("POST", "/v2/repository/models/{name}/load", f"{INFERENCE}/RepositoryModelLoad", inference.load),
        ("POST", "/v2/repository/models/{name}/unload", f"{INFERENCE}/RepositoryModelUnload", inference.unload),
        *of_model,
    )


class _Application:
    """Checks where a request comes from, and finds its endpoint."""

    def __init__(self, router: Router, origins: Origins, context: EndpointContext) -> None:
        self._router = router
        self._origins = origins
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        added = NO_SNIFFING
        try:
            if origin := self._origins.check(scope, headers):
                added = [*added, *cors_headers(origin)]
                if scope["method"] == "OPTIONS":
                    await preflight()(scope, receive, with_headers(send, added))
                    return
            scope["app"] = self  # so that Starlette raises for an unknown path, instead of answering in its own way
            await self._router(scope, receive, with_headers(send, added))
        except HTTPException as error:
            await self._reject(_to_api_error(error, scope), scope, receive, with_headers(send, added))
        except ApiError as error:
            await self._reject(error, scope, receive, with_headers(send, added))

    async def _reject(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = choose_request_id(Headers(scope=scope).get(REQUEST_ID))
        call = Call("unknown", request_id)  # under one name, since clients can invent any number of paths
        for observer in self._context.observers:
            observer.began(call, {})
            observer.ended(call, error.code.name, 0.0)
        response = problem_response(error, request_id, repeat_as_error=scope["path"].startswith("/v2"))
        response.headers[REQUEST_ID] = request_id
        await response(scope, receive, send)


def _to_api_error(error: HTTPException, scope: Scope) -> ApiError:
    """The error of a path or a method that does not exist."""
    method, path = scope["method"], scope["path"][:100]
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return invalid("METHOD_NOT_ALLOWED", f"{method} {path} is not possible; {allow} is", "", allow=allow)
    return ApiError(Code.NOT_FOUND, "PATH_UNKNOWN", f"there is no {path!r}; /docs lists what there is")
