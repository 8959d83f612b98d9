"""The process of a server, from its start to SIGTERM or SIGINT."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import uvloop

from serving.image.decode import ignore_pillow_warnings
from serving.server import Server
from serving.settings import Settings
from serving.startup import ServerFailed, StartupError
from serving.system.memory import keep_freed_memory

GC_THRESHOLDS = (20_000, 20, 20)
SWITCH_INTERVAL_S = 0.001
STOP_S = 2.0
"""How long a stop takes at most, beyond the grace period or after a second signal, whatever is in progress."""
THREADS = "server-thread"

logger = logging.getLogger(__name__)


class Stages:
    """What a process does beside serving: here, print one line when ready. `serving.processes` has more."""

    def make_server(self, settings: Settings) -> Server:
        """The server, not started."""
        return Server(settings)

    async def loaded(self, server: Server) -> None:
        """The models are loaded, and the server is about to listen."""

    async def serving(self, server: Server) -> None:
        """The server is ready."""
        print(f"pawserve ready on {server.describe()}", flush=True)

    async def failed(self, reason: str) -> None:
        """The server cannot start, or cannot serve any more."""


def run(settings: Settings, stages: Stages | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        StartupError: if the server cannot start.
        ServerFailed: if it cannot serve any more, and has shut down.
    """
    uvloop.run(_run(settings, stages or Stages()))


async def _run(settings: Settings, stages: Stages) -> None:
    keep_freed_memory()
    ignore_pillow_warnings()
    server = stages.make_server(settings)
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix=THREADS)
    loop.set_default_executor(executor)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.add_signal_handler(signal.SIGHUP, server.check_models)
    life = asyncio.create_task(_live(server, stages))
    stop = asyncio.create_task(server.serve())
    await asyncio.wait((life, stop), return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        with suppress(OSError, RuntimeError, ValueError):  # standard error is no file
            # for code that keeps the interpreter's lock, so that nothing below runs
            faulthandler.dump_traceback_later(settings.grace_s + STOP_S, exit=True)
        if server.address:
            await _wait_for_shutdown(life, server)
        executor.shutdown(wait=False)
        if not life.done() or await _is_working(executor):
            logger.warning("the process ends without waiting for what is in progress, such as the load of a model")
            logging.shutdown()
            os._exit(0 if server.closed_state or not server.address else 1)  # a thread cannot be interrupted
    else:
        stop.cancel()
    await life


async def _live(server: Server, stages: Stages) -> None:
    try:
        server.check_addresses()
        await server.prepare()
        await stages.loaded(server)
        await server.listen()
        tune_interpreter()
        await stages.serving(server)
        await server.serve()
        logger.info("shutting down after the requests in flight; a second signal ends them at once")
        await server.shutdown()
        if server.failure:
            raise ServerFailed(server.failure)
    except (StartupError, ServerFailed) as error:
        await stages.failed(str(error))
        raise


async def _wait_for_shutdown(life: asyncio.Task[None], server: Server) -> None:
    """Wait until the server has shut down, or had the grace period and a second for it."""
    cut_short = asyncio.create_task(server.cut_short.wait())
    limit_s = server.settings.grace_s + STOP_S / 2
    await asyncio.wait((life, cut_short), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    if cut_short.done():
        await asyncio.wait((life,), timeout=STOP_S / 2)
    cut_short.cancel()


async def _is_working(executor: ThreadPoolExecutor) -> bool:
    """Whether a thread of an executor that is shut down still works; idle ones end in a moment."""
    for _ in range(20):
        if not any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
            return False
        await asyncio.sleep(STOP_S / 80)
    return True


def tune_interpreter() -> None:
    """Adapt garbage collection and thread switching to serving, after everything is loaded."""
    # Loaded objects stay, so the collector need not visit them; requests leave hardly any cycles, so it can run seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # A worker that has decoded or computed needs the interpreter for microseconds only, and should not wait until the
    # event loop has nothing to do.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
