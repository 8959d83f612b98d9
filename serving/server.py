"""The server: assembles the rooms and runs them from start-up to shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial

from serving.api.access import build_access_control
from serving.api.classification import ClassificationService
from serving.api.in_flight import BytesInFlight
from serving.api.open_inference.inference import InferenceCalls
from serving.api.pawserve.classifier import ClassifierCalls
from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError, Manifest
from serving.bundle.model_version import resource_name
from serving.listeners import Listeners, Services
from serving.models.control import ModelControl
from serving.models.kept_image import ByteBudget
from serving.models.loader import ServedModel, load_model
from serving.models.primaries import apply_choices
from serving.models.repository import ModelRepository
from serving.models.watcher import ModelWatcher
from serving.observability.observers import Observability
from serving.rpc.calls import CallInterceptor
from serving.rpc.classifier_service import ClassifierService
from serving.rpc.grpc_server import CLASSIFIER, INFERENCE
from serving.rpc.health import HealthServicer
from serving.rpc.inference_service import InferenceService
from serving.rpc.streaming import StreamProcessor
from serving.settings import Settings
from serving.shadows.queue import ShadowQueue
from serving.startup import StartupError, listen_errors
from serving.state import PersistentState
from serving.statistics.feedback import Feedback
from serving.statistics.shadows.joining import ShadowLabels
from serving.statistics.store import StatisticsUnavailable
from serving.system.cpus import available_cpus
from serving.system.network import check_free

SHADOW_BYTES_PART = 8
"""Images that wait for shadow versions have at most one part in so many of the bytes that encoded images may have."""

logger = logging.getLogger(__name__)


class Server:
    """One server: `check_addresses`, `prepare` and `listen`, then `serve` until a signal or `stop`, then `shutdown`.

    A host that receives the calls itself, such as Ray, uses `prepare` and `mark_ready`, passes the calls to
    `classifier` and `health` through the `interceptor`, and ends with `mark_stopping` and `close`.
    """

    def __init__(self, settings: Settings, make_control: Callable[..., ModelControl] = ModelControl) -> None:
        """`make_control` takes the repository and the watcher."""
        self.settings = settings
        self._make_control = make_control
        self.address = ""
        """HOST:PORT or unix:PATH that it listens on, once it has started."""
        self.http_url = ""
        """URL of the HTTP server, once it has started; empty without one."""
        self.failure = ""
        """Why it cannot serve any more; empty while it can."""
        self.closed_state = False
        """Whether the statistics were written and closed."""
        self.cut_short = asyncio.Event()
        """Set when the grace period of `shutdown` is over."""
        self._stopping = asyncio.Event()
        self._cleanup = ExitStack()

    async def serve(self) -> None:
        """Serve until `stop` is called."""
        await self._stopping.wait()

    async def shutdown(self) -> None:
        """Finish the calls in flight, within the grace period, then `close`."""
        self.mark_stopping()
        await self._listeners.drain(self.settings.grace_s, self.cut_short)
        await self.close()

    def stop(self) -> None:
        """End `serve`; a second call ends the grace period of `shutdown`."""
        (self.cut_short if self._stopping.is_set() else self._stopping).set()

    def check_addresses(self) -> None:
        """Check that `listen` can succeed, before `prepare`, which may take long.

        Raises:
            StartupError: if an address cannot be used.
        """
        settings = self.settings
        if settings.reuse_port:  # the supervisor holds the ports
            return
        with listen_errors(settings.listen, "--listen"):
            check_free(settings.listen)
        if settings.http.required and settings.http.listen is not None:
            with listen_errors(settings.http.listen, "--http"):
                check_free(settings.http.listen)

    async def prepare(self) -> None:
        """Load the models and open the state.

        Raises:
            StartupError: if one of them fails.
        """
        with self._startup_errors():
            self._access = build_access_control(self.settings.security, self.settings.addresses)
            self.observability = Observability(self.settings.observability)
            self._options = replace(
                self.settings.options,
                make_observer=self.observability.make_observer,
                on_device_lost=partial(_call_in_loop, asyncio.get_running_loop(), self._fail),
            )
            await asyncio.to_thread(self._load_models)
            await asyncio.to_thread(self._open_state)
            self._start_observability()
            self._make_services()
            await self.watcher.load_shadows()

    async def listen(self) -> None:
        """Listen, and report the services as healthy.

        Raises:
            StartupError: if it cannot listen.
        """
        with self._startup_errors():
            self.address, self.http_url = await self._listeners.listen()
        self.mark_ready()

    def mark_ready(self) -> None:
        """Report the services as healthy, and check for new model versions from now on."""
        self.health.set_serving()
        self._watching = asyncio.create_task(self.watcher.watch(self.settings.poll_s))

    def _fail(self, reason: str) -> None:
        """Report the services as not serving, and end `serve`: only a new process can serve again."""
        if not self.failure:
            logger.critical("%s: the server stops, since only a restart helps", reason)
            self.failure = reason
            self.health.stop()
            self._stopping.set()

    def mark_stopping(self) -> None:
        """Report the services as not serving, and end the calls that have no end of their own."""
        self.health.stop()
        self._streams.stop()
        self._watching.cancel()
        self._calls.statistics.stop()

    async def close(self) -> None:
        """Write the statistics and close everything; no call may be in flight."""
        await asyncio.to_thread(self._cleanup.close)

    def check_models(self) -> None:
        """Check for new model versions now."""
        if self.address:  # before, the start-up is about to check
            self.watcher.request_scan()

    def describe(self) -> str:
        """The addresses and the served models, in one line."""
        models = "; ".join(map(self._describe, self.repository.models))
        metrics = f"; metrics on {self.observability.metrics_url}" if self.observability.metrics_url else ""
        http = f"; HTTP on {self.http_url}" if self.http_url else ""
        return f"{self.address}: {models}{http}{metrics}"

    def _describe(self, model: ServedModel) -> str:
        manifest = model.manifest
        share = self.repository.shadow_share(manifest.model_version)
        return f"{manifest.resource} ({model.engine}{f'; shadow of {share:.0%} of the requests' if share else ''})"

    @contextmanager
    def _startup_errors(self) -> Iterator[None]:
        """Turn errors into StartupError, after closing what was opened."""
        try:
            yield
        except (BundleError, StatisticsUnavailable, ValueError) as error:
            self._cleanup.close()
            raise StartupError(str(error)) from error
        except StartupError:
            self._cleanup.close()
            raise

    def _load_models(self) -> None:
        self.repository = ModelRepository(self.settings.shadows)
        self._cleanup.callback(self.repository.close)
        self._cleanup.callback(setattr, self, "closed_state", True)  # all that is closed before the repository
        settings = self.settings
        models: dict[str, ServedModel] = {}
        for bundle in find_bundles(settings.models, settings.wanted, settings.keep_versions, settings.shadows):
            name = bundle.manifest.name
            shadow = self.repository.is_shadow(bundle.manifest.model_version)
            models[name] = load_model(bundle, self._options, previous=models.get(name), shadow=shadow)
            self.repository.add(models[name])
        apply_choices(self.repository, settings.models)

    def _open_state(self) -> None:
        self._state = PersistentState(self.settings, self._cleanup)
        for model in self.repository.models:
            self._register(model.manifest)

    def _register(self, manifest: Manifest) -> None:
        self._state.store.register_version(manifest.model_version, manifest.classes)

    def _start_observability(self) -> None:
        self._cleanup.callback(self.observability.close)
        try:
            self.observability.start(self.repository, self._state.store)
        except OSError as error:
            listen = self.settings.observability.metrics
            raise StartupError(
                f"cannot listen on {listen} for metrics ({error.strerror}); choose another address with --metrics"
            ) from error

    def _make_services(self) -> None:
        settings, store = self.settings, self._state.store
        shadow_labels = ShadowLabels(store, partial(self.observability.count_shadow, "labels"))
        self._cleanup.callback(shadow_labels.close)
        self.feedback = Feedback(self._state.keyring, store, self.observability.labels_recorded, shadow_labels)
        in_flight = BytesInFlight(settings.max_bytes_in_flight)
        shadows = ShadowQueue(
            self.repository,
            self.feedback,
            ByteBudget(settings.max_bytes_in_flight // SHADOW_BYTES_PART),
            partial(self.observability.count_shadow, "images"),
            cpus=available_cpus(limit=settings.options.cpu_limit),
        )
        self._cleanup.callback(shadows.close)
        self.observability.watch_shadows(lambda: len(shadows), lambda: shadows.budget.taken)
        classification = ClassificationService(
            self.repository, self.feedback, settings.max_views, in_flight, shadows, default_views=settings.default_views
        )
        self._streams = StreamProcessor(in_flight)
        self.watcher = ModelWatcher(
            self.repository, settings.models, settings.wanted, self._options, self._register, settings.keep_versions
        )
        self._control = self._make_control(self.repository, self.watcher)
        self._calls = ClassifierCalls(self._control, self.feedback, store, classification)
        self.classifier = ClassifierService(self._calls, self._streams)
        inference = InferenceCalls(self._control, classification, settings.options.limits.max_pixels)
        access = self._access
        observers = self.observability.call_observers
        self.interceptor = CallInterceptor(observers, access)
        self.health = HealthServicer([CLASSIFIER, INFERENCE])
        services = Services(
            classifier=self.classifier,
            inference=InferenceService(inference, self._streams),
            health=self.health,
            interceptor=self.interceptor,
            classifier_calls=self._calls,
            inference_calls=inference,
            access=access,
            observers=observers,
            stopping=self._stopping.is_set,
        )
        self._listeners = Listeners(settings, services)
        loop = asyncio.get_running_loop()
        self.repository.on_change.append(partial(_call_in_loop, loop, self._update_health))
        self._update_health()

    def _update_health(self) -> None:
        """Report as healthy each models/NAME that has a primary version, and each version that is served."""
        names = {model.manifest.resource for model in self.repository.models}
        names |= set(map(resource_name, self.repository.names))
        self._control.publish(names, self.health.set_models)


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop has ended, while retired models still finish their calls
        loop.call_soon_threadsafe(function, *arguments)
