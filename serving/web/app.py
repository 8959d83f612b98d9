"""The ASGI application: which endpoint answers which request."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.errors import ApiError, Code, invalid
from serving.context import Call
from serving.web.browsers import Origins, cors_headers, preflight, with_headers
from serving.web.endpoints import Endpoint, Gate, Handler
from serving.web.open_inference.endpoints import InferenceEndpoints
from serving.web.pawserve.endpoints import ClassifierEndpoints
from serving.web.problems import problem_response
from serving.web.static_files import read_static_files

CLASSIFIER = "/pawserve.v1.Classifier"
INFERENCE = "/inference.GRPCInferenceService"
NO_SNIFFING = [(b"x-content-type-options", b"nosniff")]

Table = Sequence[tuple[str, str, str, Handler]]


def make_app(
    gate: Gate, classifier: ClassifierEndpoints, inference: InferenceEndpoints, origins: Origins, pages: Sequence[Route]
) -> ASGIApp:
    """The application.

    Args:
        gate: access control and observers of all endpoints.
        classifier: answers below /v1.
        inference: answers below /v2.
        origins: which requests of browsers are answered.
        pages: further pages, which need no credentials.
    """
    routes = [_route(gate, *entry) for entry in endpoint_table(classifier, inference)]
    files = read_static_files()
    routes += [Route(path, file.respond) for path, file in files.items()]
    routes += pages
    if "/" not in files:
        routes.append(Route("/", _to_documentation))
    return _Application(Router(routes, redirect_slashes=False), origins, gate)


def endpoint_table(classifier: ClassifierEndpoints, inference: InferenceEndpoints) -> Table:
    """Method, path, the gRPC method whose role it needs, and what answers."""
    return (*_classifier_table(classifier), *_inference_table(inference))


def _classifier_table(endpoints: ClassifierEndpoints) -> Table:
    return (
        ("POST", "/v1/classify", f"{CLASSIFIER}/Classify", endpoints.classify),
        ("POST", "/v1/labels", f"{CLASSIFIER}/RecordLabels", endpoints.record_labels),
        ("GET", "/v1/models", f"{CLASSIFIER}/ListModels", endpoints.list_models),
        ("GET", "/v1/models/{name}/versions/{version}/manifest", f"{CLASSIFIER}/ListModels", endpoints.get_manifest),
        ("GET", "/v1/models/{name}/versions/{version}/report", f"{CLASSIFIER}/ListModels", endpoints.get_report),
        ("GET", "/v1/statistics", f"{CLASSIFIER}/GetStatistics", endpoints.get_statistics),
        ("GET", "/v1/comparison", f"{CLASSIFIER}/GetComparison", endpoints.get_comparison),
        ("GET", "/v1/statistics/watch", f"{CLASSIFIER}/WatchStatistics", endpoints.watch_statistics),
    )


def _inference_table(endpoints: InferenceEndpoints) -> Table:
    whole = (
        ("GET", "/v2", f"{INFERENCE}/ServerMetadata", endpoints.server_metadata),
        ("GET", "/v2/health/live", f"{INFERENCE}/ServerLive", endpoints.live),
        ("GET", "/v2/health/ready", f"{INFERENCE}/ServerReady", endpoints.ready),
        ("GET", "/v2/models/stats", f"{INFERENCE}/ModelStatistics", endpoints.statistics),
        ("POST", "/v2/repository/index", f"{INFERENCE}/RepositoryIndex", endpoints.repository_index),
        ("POST", "/v2/repository/models/{name}/load", f"{INFERENCE}/RepositoryModelLoad", endpoints.load),
        ("POST", "/v2/repository/models/{name}/unload", f"{INFERENCE}/RepositoryModelUnload", endpoints.unload),
    )
    of_model = [
        entry
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        for entry in (
            ("POST", f"{path}/infer", f"{INFERENCE}/ModelInfer", endpoints.infer),
            ("GET", path, f"{INFERENCE}/ModelMetadata", endpoints.model_metadata),
            ("GET", f"{path}/ready", f"{INFERENCE}/ModelReady", endpoints.model_ready),
            ("GET", f"{path}/config", f"{INFERENCE}/ModelConfig", endpoints.model_config),
            ("GET", f"{path}/stats", f"{INFERENCE}/ModelStatistics", endpoints.statistics),
        )
    ]
    return (*whole, *of_model)


def _route(gate: Gate, method: str, path: str, call: str, handler: Handler) -> Route:
    return Route(path, Endpoint(gate, f"{method} {path}", call, handler), methods=[method], name=path)


class _Application:
    """Checks where a request comes from, and finds its endpoint."""

    def __init__(self, router: Router, origins: Origins, gate: Gate) -> None:
        self._router = router
        self._origins = origins
        self._gate = gate

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
            await self._refuse(_to_api_error(error, scope), scope, receive, with_headers(send, added))
        except ApiError as error:
            await self._refuse(error, scope, receive, with_headers(send, added))

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call("unknown", "")  # under one name, since clients can invent any number of paths
        for observer in self._gate.observers:
            observer.began(call, {})
            observer.ended(call, error.code.name, 0.0)
        response = problem_response(error, repeat_as_error=scope["path"].startswith("/v2"))
        await response(scope, receive, send)


def _to_api_error(error: HTTPException, scope: Scope) -> ApiError:
    """The error of a path or a method that does not exist."""
    method, path = scope["method"], scope["path"][:100]
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return invalid("METHOD_NOT_ALLOWED", f"{method} {path} is not possible; {allow} is", "", allow=allow)
    return ApiError(Code.NOT_FOUND, "PATH_UNKNOWN", f"there is no {path!r}; /docs lists what there is")


async def _to_documentation(request: Request) -> RedirectResponse:
    return RedirectResponse("/docs")
