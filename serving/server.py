"""Settings in; a running gRPC server out, from start-up to its last answer."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError, Manifest
from serving.bundle.model_version import resource_name
from serving.models.loader import ServedModel, load_model
from serving.models.repository import ModelRepository
from serving.models.watcher import ModelWatcher
from serving.observability.observers import Observability
from serving.pb.inference import open_inference_pb2, open_inference_pb2_grpc
from serving.pb.pawserve.v1 import classifier_pb2, classifier_pb2_grpc
from serving.rpc.authentication import build_authentication
from serving.rpc.calls import CallInterceptor
from serving.rpc.classification import ClassificationService
from serving.rpc.draining import DrainInterceptor
from serving.rpc.health import HealthServicer
from serving.rpc.in_flight import BytesInFlight
from serving.rpc.messages import MessageInterceptor
from serving.rpc.open_inference.service import InferenceService
from serving.rpc.pawserve.service import ClassifierService
from serving.rpc.reflection import enable_reflection
from serving.rpc.streaming import StreamProcessor
from serving.settings import Settings
from serving.statistics.feedback import Feedback
from serving.statistics.retention import Retention
from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from serving.system.network import format_address, parse_address
from serving.tokens.keyring import Keyring

SERVICE = classifier_pb2.DESCRIPTOR.services_by_name["Classifier"].full_name

INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

logger = logging.getLogger(__name__)


class StartupError(Exception):
    """The server cannot start; the message says why, and what to change."""


class Server:
    """One server: `startup`, then `serve` until a signal or `stop`, then `shutdown`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = ""
        """HOST:PORT that it listens on, once it has started."""
        self._stopping = asyncio.Event()
        self._cut_short = asyncio.Event()
        self._cleanup = ExitStack()

    async def startup(self) -> None:
        """Load the models, open the state, and listen.

        Raises:
            StartupError: if one of them cannot be done.
        """
        await self.prepare()
        with self._saying_why():
            self._listen()
            await self._server.start()
        self.begin()

    async def prepare(self) -> None:
        """All of `startup` but listening: for a host that takes the calls itself, and gives them to `classifier` and
        `health` through the `interceptors`.

        Raises:
            StartupError: if it cannot be done.
        """
        with self._saying_why():
            self._observing = Observability(self.settings.observability)
            self._options = replace(self.settings.options, make_observer=self._observing.make_observer)
            await asyncio.to_thread(self._load_models)
            await asyncio.to_thread(self._open_state)
            self._observe()
            self._make_services()

    def begin(self) -> None:
        """Say that all is well, and look for new versions from now on."""
        self.health.set_serving()
        self._watching = asyncio.create_task(self.watcher.watch(self.settings.poll_s))

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT comes, or `stop` is called."""
        await self._stopping.wait()

    async def shutdown(self) -> None:
        """Answer what is in flight, within the grace period; then write what is known, and let go of everything."""
        self.end()
        await self._new_calls.hold()
        drained = asyncio.create_task(self._server.stop(self.settings.grace_s))
        await self._new_calls.release()
        cut_short = asyncio.create_task(self._cut_short.wait())
        await asyncio.wait((drained, cut_short), return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            await self._server.stop(None)
        cut_short.cancel()
        await drained
        await self.close()

    def end(self) -> None:
        """Say that nothing is well any more, and end the calls that would go on for ever."""
        self.health.stop()
        self._streams.stop()
        self._watching.cancel()
        self.classifier.statistics.stop()

    async def close(self) -> None:
        """Write what is known, and let go of everything, once no call is in flight."""
        await asyncio.to_thread(self._cleanup.close)

    def stop(self) -> None:
        """Ask `serve` to end; asked again, `shutdown` no longer waits for requests to be answered."""
        (self._cut_short if self._stopping.is_set() else self._stopping).set()

    def look_for_models(self) -> None:
        """Look for new versions now, and not only at the next time; before it has started, it is about to."""
        if self.address:
            self.watcher.ask()

    def describe(self) -> str:
        """One line for people: where it listens, and what it serves."""
        models = "; ".join(f"{model.manifest.resource} ({model.engine})" for model in self.repository.models)
        metrics = f"; metrics on {self._observing.metrics_url}" if self._observing.metrics_url else ""
        return f"{self.address}: {models}{metrics}"

    @contextmanager
    def _saying_why(self) -> Iterator[None]:
        """Whatever stops the start lets go of what was begun, and is a StartupError."""
        try:
            yield
        except (BundleError, StatisticsUnavailable, ValueError) as error:
            self._cleanup.close()
            raise StartupError(str(error)) from error
        except StartupError:
            self._cleanup.close()
            raise

    def _load_models(self) -> None:
        self.repository = ModelRepository()
        self._cleanup.callback(self.repository.close)
        settings = self.settings
        bundles = find_bundles(settings.models, settings.wanted, settings.keep_versions)
        models: dict[str, ServedModel] = {}
        for bundle in bundles:  # all before the first is served, so that each can be measured
            name = bundle.manifest.name
            models[name] = load_model(bundle, self._options, alike=models.get(name))
            self.repository.add(models[name])

    def _open_state(self) -> None:
        state = self.settings.state
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"the state folder {state} cannot be used ({error.strerror}); name another one with --state"
            ) from error
        key = self.settings.token_key or state / "token.key"
        try:
            self._signer = Keyring(key)
        except OSError as error:
            option = "--state" if self.settings.token_key is None else "--token-key"
            raise StartupError(
                f"the keys in {key} cannot be used ({error.strerror}); name another place with {option}"
            ) from error
        database = self.settings.statistics or state / "statistics.sqlite"
        self._store = self._cleanup.enter_context(StatisticsStore(database))
        if self.settings.retention_days is not None:
            self._cleanup.enter_context(Retention(self._store, self.settings.retention_days))
        for model in self.repository.models:
            self._register(model.manifest)

    def _register(self, manifest: Manifest) -> None:
        self._store.register_version(manifest.name, manifest.version, manifest.classes)

    def _observe(self) -> None:
        try:
            self._cleanup.enter_context(self._observing.start(self.repository, self._store))
        except OSError as error:
            listen = self.settings.observability.metrics
            raise StartupError(
                f"cannot listen on {listen} for metrics ({error.strerror}); name another address with --metrics"
            ) from error

    def _make_services(self) -> None:
        settings = self.settings
        feedback = Feedback(self._signer, self._store, self._observing.labels_recorded)
        in_flight = BytesInFlight(settings.max_bytes_in_flight)
        classification = ClassificationService(self.repository, feedback, settings.max_views, in_flight)
        self._streams = StreamProcessor(in_flight)
        self.classifier = ClassifierService(self.repository, feedback, self._store, classification, self._streams)
        self.watcher = ModelWatcher(
            self.repository, settings.models, settings.wanted, self._options, self._register, settings.keep_versions
        )
        self._inference = InferenceService(
            self.repository, self.watcher, classification, self._streams, settings.options.limits.max_pixels
        )
        self.health = HealthServicer([SERVICE, INFERENCE_SERVICE])
        loop = asyncio.get_running_loop()
        self.repository.on_change.append(partial(_in_loop, loop, self._tell_health))
        self._tell_health()
        self.interceptors = [
            CallInterceptor(self._observing.call_observers),
            build_authentication(settings.security, settings.listen),
            MessageInterceptor(),
        ]

    def _listen(self) -> None:
        settings = self.settings
        self._new_calls = DrainInterceptor()
        observe, *others = self.interceptors  # of which those that remember handlers do not ask what comes after them
        interceptors = [observe, self._new_calls, *others]
        connections = settings.connections.fit_open_files()
        self._server = grpc.aio.server(options=connections.grpc_options(), interceptors=interceptors)
        classifier_pb2_grpc.add_ClassifierServicer_to_server(self.classifier, self._server)  # type: ignore[no-untyped-call]
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if settings.reflection:
            described = classifier_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR
            services = (SERVICE, INFERENCE_SERVICE, HEALTH_SERVICE)
            enable_reflection([*zip(services, described, strict=True)], self._server)
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen on {settings.listen}: the port is taken, or the address is not this machine's; "
                "stop the other server, or name another address with --listen"
            ) from error
        self.address = format_address(parse_address(settings.listen)[0], port)

    def _add_port(self) -> int:
        tls = self.settings.security.tls
        if tls is None:
            return int(self._server.add_insecure_port(self.settings.listen))
        from serving.security.tls import server_credentials  # a server without TLS does not load `cryptography`

        return int(self._server.add_secure_port(self.settings.listen, server_credentials(tls)))

    def _tell_health(self) -> None:
        """Report models/NAME and models/NAME/versions/VERSION as healthy for every version that is served."""
        models = [model.manifest for model in self.repository.models]
        self.health.set_models({name for each in models for name in (resource_name(each.name), each.resource)})


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # models that are still draining when the loop has ended
        loop.call_soon_threadsafe(function)
