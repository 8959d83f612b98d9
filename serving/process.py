"""The process of a server, from its start to SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import signal
import sys

import uvloop

from serving.image.decode import ignore_pillow_warnings
from serving.server import Server, ServerFailed
from serving.settings import Settings
from serving.system.memory import keep_freed_memory

GC_THRESHOLDS = (20_000, 20, 20)
SWITCH_INTERVAL_S = 0.001

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; print one line when ready.

    Raises:
        StartupError: if the server cannot start.
        ServerFailed: if it cannot serve any more, and has shut down.
    """
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    keep_freed_memory()
    ignore_pillow_warnings()
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.add_signal_handler(signal.SIGHUP, server.check_models)
    await server.startup()
    tune_interpreter()
    print(f"pawserve ready on {server.describe()}", flush=True)
    await server.serve()
    logger.info("shutting down after the requests in flight; a second signal ends them at once")
    await server.shutdown()
    if server.failure:
        raise ServerFailed(server.failure)


def tune_interpreter() -> None:
    """Adapt garbage collection and thread switching to serving, after everything is loaded."""
    # Loaded objects stay, so the collector need not visit them; requests leave hardly any cycles, so it can run seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # A worker that has decoded or computed needs the interpreter for microseconds only, and should not wait until the
    # event loop has nothing to do.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
