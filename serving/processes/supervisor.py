"""The supervisor of a server of several processes: from the reserved port to the end of the last process."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from serving.process import STOP_S
from serving.processes.channel import Channel, ChannelClosed, RemoteError
from serving.processes.child import Start, send_start
from serving.processes.ports import reserved_port
from serving.processes.shares import share_cpus, share_settings
from serving.processes.slot import Process, ProcessState
from serving.processes.statuses import merge, to_rows
from serving.settings import Settings
from serving.startup import ServerFailed, StartupError, listen_errors
from serving.system.logs import LogFormat

FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""How long after its end a process is started again. The pause doubles each time, and begins anew after STEADY_S."""
STEADY_S = 60.0
KILL_S = 3.0
"""How long after the time that a process takes to stop at most it is killed."""
ANSWER_S = 5.0
"""How long a process may take to answer; one that does not is left out."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs `count` processes until a signal.

    Args:
        settings: of the whole server; limits are divided between the processes.
        count: number of processes, at least 2.
        log_format, log_level: of the processes' logs.

    Raises:
        ValueError: if the settings cannot be divided.
    """

    def __init__(self, settings: Settings, count: int, log_format: LogFormat, log_level: str) -> None:
        self._settings = settings
        self._start = Start(settings=share_settings(settings, count), log_format=log_format, log_level=log_level)
        self._processes = [Process(number, cpus) for number, cpus in enumerate(share_cpus(count), 1)]
        self._changed = asyncio.Event()  # set, and replaced, when a process changes its state or the server stops
        self._stopping = asyncio.Event()
        self._may_listen = False
        self._stopped: list[Process] = []
        """The processes that ran when the stop began."""
        self._changes: list[list[str]] = []
        """What clients have loaded and unloaded, for processes that start later."""
        self._handlers: dict[str, Callable[[Process, Any], Awaitable[Any]]] = {
            "loaded": self._on_loaded,
            "serving": self._on_serving,
            "failed": self._on_failed,
            "names": self._on_names,
            "models": self._on_models,
            "change": self._on_change,
            "labelled": self._on_labelled,
        }
        self._cleanup = ExitStack()
        self.metrics_url = ""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; print one line when ready.

        Raises:
            StartupError: if the port is in use, or no process could start.
            ServerFailed: if a process did not stop as it should.
        """
        loop = asyncio.get_running_loop()
        with self._cleanup:
            self._reserve_ports()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(
                signal.SIGHUP, self._signal, signal.SIGHUP, (ProcessState.LOADED, ProcessState.SERVING)
            )
            keepers = [asyncio.create_task(self._keep(process)) for process in self._processes]
            try:
                await self._startup()
                await self._stopping.wait()
            finally:
                if not self._stopping.is_set():
                    self.stop()
                await self._shutdown(keepers)

    def stop(self) -> None:
        """Stop all processes; a second call ends the grace period of their shutdown."""
        if not self._stopping.is_set():
            self._stopped = [each for each in self._processes if each.state is not ProcessState.DOWN]
            if self._stopped:
                logger.info("stopping the processes; a second signal ends the requests in flight")
        self._stopping.set()
        self._notify()
        self._signal(signal.SIGTERM, tuple(ProcessState))

    def _signal(self, number: signal.Signals, states: Sequence[ProcessState]) -> None:
        for process in self._processes:
            if process.popen and process.state in states:
                process.popen.send_signal(number)

    def _reserve_ports(self) -> None:
        settings = self._settings
        with listen_errors(settings.listen, "--listen"):
            address = self._cleanup.enter_context(reserved_port(settings.listen))
        http = replace(settings.http, listen=self._reserve_http_port(), required=True)
        self._start = replace(self._start, settings=replace(self._start.settings, listen=address, http=http))
        if settings.observability.metrics is not None:
            self._serve_metrics(settings.observability.metrics)

    def _reserve_http_port(self) -> str | None:
        """The address for HTTP, with its port; None without HTTP."""
        http = self._settings.http
        if http.listen is None:
            return None
        try:
            with listen_errors(http.listen, "--http"):
                return self._cleanup.enter_context(reserved_port(http.listen))
        except StartupError as error:
            if http.required:
                raise
            logger.warning("no HTTP: %s, or --http off", error)
            return None

    def _serve_metrics(self, listen: str) -> None:
        from prometheus_client import CollectorRegistry  # loaded only if there are metrics

        from serving.observability.endpoint import MetricsEndpoint
        from serving.processes.metrics import ProcessesCollector

        registry = CollectorRegistry()
        registry.register(ProcessesCollector(asyncio.get_running_loop(), partial(self._ask, "metrics"), self._restarts))
        try:
            endpoint = MetricsEndpoint(registry, listen)
        except OSError as error:
            raise StartupError(
                f"cannot listen on {listen} for metrics ({error.strerror}); choose another address with --metrics"
            ) from error
        self._cleanup.callback(endpoint.close)
        self.metrics_url = endpoint.url

    async def _startup(self) -> None:
        """Let the processes listen once each has loaded the models or has failed; announce those that serve."""
        processes = self._processes
        await self._wait(lambda: all(each.settled or each.state is ProcessState.LOADED for each in processes))
        if any(each.state is ProcessState.LOADED for each in processes):
            self._may_listen = True
            self._notify()
            await self._wait(lambda: all(each.settled for each in processes))
        if self._stopping.is_set():
            return
        serving = [each for each in processes if each.state is ProcessState.SERVING]
        if not serving:
            reasons = dict.fromkeys(each.reason for each in processes)
            raise StartupError("; ".join(filter(None, reasons)) or f"none of {len(processes)} processes could start")
        count = f"{len(serving)} of {len(processes)}" if len(serving) < len(processes) else str(len(processes))
        metrics = f"; metrics on {self.metrics_url}" if self.metrics_url else ""
        print(f"pawserve ready on {serving[0].description}; {count} processes{metrics}", flush=True)

    async def _shutdown(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the processes; kill those that take longer than they may."""
        _, late = await asyncio.wait(keepers, timeout=self._settings.grace_s + STOP_S + KILL_S)
        self._signal(signal.SIGKILL, tuple(ProcessState))
        if late:
            await asyncio.wait(late)
        for keeper in keepers:
            keeper.result()
        good = (0, -signal.SIGTERM)  # the second, if it had only just begun
        bad = [each for each in self._stopped if each.popen and each.popen.returncode not in good]
        if bad and self._may_listen:
            ends = ", ".join(f"process {each.number} {each.describe_end()}" for each in bad)
            raise ServerFailed(f"not all processes stopped as they should: {ends}")

    async def _keep(self, process: Process) -> None:
        """Run a process again and again until the server stops."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = loop.time()
            await self._run_once(process)
            process.settled = True
            self._notify()
            await self._wait(lambda: self._may_listen)  # until then, the start may still fail
            if self._stopping.is_set():
                return
            if loop.time() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            logger.error("process %d %s; it is started again in %g s", process.number, process.describe_end(), pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _run_once(self, process: Process) -> None:
        """Start a process, and wait for its end."""
        try:
            ours = process.start()
        except OSError as error:
            process.reason = f"it cannot be started: {error.strerror}"
            return
        process.channel = Channel(ours, {verb: partial(handle, process) for verb, handle in self._handlers.items()})
        with suppress(OSError):  # it has ended already
            send_start(ours, self._start)
        await process.channel.run()
        await asyncio.to_thread(process.wait)
        process.state, process.channel, process.names = ProcessState.DOWN, None, None
        self._report_names()

    async def _on_loaded(self, process: Process, _: Any) -> list[list[str]]:
        """Return when the process may listen, with the changes to make before."""
        process.state = ProcessState.LOADED
        self._notify()
        await self._wait(lambda: self._may_listen)
        process.changes = len(self._changes)
        return self._changes[:]

    async def _on_serving(self, process: Process, description: str) -> None:
        assert process.channel is not None
        while process.changes < len(self._changes):  # of which some may have come since it was loaded
            change = self._changes[process.changes]
            process.changes += 1
            try:
                await process.channel.call("change", change)
            except RemoteError as error:
                logger.warning("%s %s, which a client asked for before: %s", *change, error)
        process.description, process.state, process.settled = description, ProcessState.SERVING, True
        if process.restarts:
            logger.info("process %d serves again", process.number)
        self._notify()

    async def _on_failed(self, process: Process, reason: str) -> None:
        process.reason = reason

    async def _on_names(self, process: Process, names: list[str]) -> None:
        process.names = frozenset(names)
        self._report_names()

    def _report_names(self) -> None:
        """Tell all processes which names all of them serve."""
        known = [each for each in self._processes if each.names is not None]
        if known:
            common = sorted(frozenset.intersection(*(each.names for each in known if each.names is not None)))
            for each in known:
                if each.channel:
                    each.channel.notify("served", common)

    async def _on_models(self, process: Process, _: Any) -> Any:
        return to_rows(merge([*(await self._ask("models")).values()]))

    async def _on_change(self, process: Process, change: list[str]) -> None:
        """Load or unload a model in all other processes.

        Raises:
            RemoteError: if one of them failed.
        """
        self._changes.append(change)
        others = [
            each.channel for each in self._processes if each is not process and each.state is ProcessState.SERVING
        ]
        for result in await asyncio.gather(
            *(each.call("change", change) for each in others if each), return_exceptions=True
        ):
            if isinstance(result, BaseException) and not isinstance(result, ChannelClosed):
                raise result

    async def _on_labelled(self, process: Process, ids: list[str]) -> None:
        """Pass on which predictions a process has labelled."""
        for each in self._processes:
            if each is not process and each.channel:
                each.channel.notify("labelled", ids)

    async def _ask(self, verb: str) -> dict[int, Any]:
        """The answers of all processes that serve, by their numbers."""
        asked = [
            (each.number, each.channel)
            for each in self._processes
            if each.state is ProcessState.SERVING and each.channel
        ]

        async def ask(channel: Channel) -> Any:
            with suppress(ChannelClosed, RemoteError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    return await channel.call(verb)

        answers = await asyncio.gather(*(ask(channel) for _, channel in asked))
        return {number: answer for (number, _), answer in zip(asked, answers, strict=True) if answer is not None}

    def _restarts(self) -> Mapping[int, int]:
        return {each.number: max(0, each.restarts) for each in self._processes}

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened, or the server stops."""
        while not happened() and not self._stopping.is_set():
            await self._changed.wait()
