"""Settings in; a process that serves them until it is told to stop out."""

import asyncio
import gc
import logging
import signal
import sys

import uvloop

from serving.server import Server
from serving.settings import Settings
from serving.system.memory import keep_freed_memory

GC_THRESHOLDS = (20_000, 20, 20)
SWITCH_INTERVAL_S = 0.001

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, and print one line when ready.

    Raises:
        StartupError: if it cannot start.
    """
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    keep_freed_memory()
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.add_signal_handler(signal.SIGHUP, server.look_for_models)
    await server.startup()
    tune_interpreter()
    print(f"pawserve ready on {server.describe()}", flush=True)
    await server.serve()
    logger.info("stopping: requests in flight are answered first; a second signal stops at once")
    await server.shutdown()


def tune_interpreter() -> None:
    """What throughput gains from, once all is loaded."""
    # What was loaded stays: nothing in it needs to be looked at again and again for garbage. Requests leave next to
    # none, so it can be collected seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # A worker that has decoded or computed needs the interpreter for some microseconds: it is not to wait for it until
    # the event loop has nothing more to do.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
