"""An engine in a process of its own, of the lowest priority, which can be stopped in the middle of a batch.

A thread of the lowest priority is not enough for work that must not delay answers. While it runs, its CPU is not idle,
so the operating system does not move a thread there that waits for another CPU; and a thread of the same process can
wait for the interpreter's lock while the thread that holds it waits for a CPU. A process can be stopped by a signal at
any moment, and continued. If it crashes, this process goes on.

`separate_process` is the process. It gets the graph once, and then batches, over a socket.
"""

import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.engine.base import Engine, InferenceError
from serving.system.cpus import lower_priority

RESTART_S = 10.0
"""Least time between two starts of the process: one that crashes at every batch would be started all the time."""
LENGTH = struct.Struct("<Q")
"""Bytes of the graph, which follow."""
SHAPE = struct.Struct("<4I")
"""`[N, H, W, 3]` of a batch; its bytes follow."""
REPLY = struct.Struct("<d2I")
"""CPU seconds of the call, rows and classes; no classes: an error message of so many bytes follows."""


class PausableEngine(Engine, Protocol):
    """An engine that can be paused, for work in the background."""

    denied_s: float
    """How long the last call waited for a CPU, in seconds, the time for which it was paused aside."""

    def pause(self) -> None:
        """Stop computing at once, until `resume`. May be called in another thread than `run`, in any state."""

    def resume(self) -> None:
        """Go on."""


class Unpausable:
    """An engine that is not stopped, such as one on a GPU, whose work occupies no CPU; a PausableEngine."""

    denied_s = 0.0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.max_batch_size = engine.max_batch_size
        self.run = engine.run
        self.close = engine.close

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


class SeparateEngine:
    """One single-threaded instance of an ONNX graph on a CPU, in a process of its own; a PausableEngine.

    Args:
        content: the graph, a serialised ModelProto.
        read: reads it again for a process that is started anew; raises if it is not what it should be.
        max_batch_size: most rows of one call.
    """

    def __init__(self, content: bytes, read: Callable[[], bytes], max_batch_size: int) -> None:
        """Start the process; it loads the graph meanwhile.

        Raises:
            OSError: if it cannot be started.
        """
        self.max_batch_size = max_batch_size
        self.denied_s = 0.0
        self._read = read
        self._paused_at: float | None = None
        self._paused_s = 0.0
        """Seconds of all pauses but the present one."""
        self._start(lambda: content)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute one batch; see Engine.run.

        Raises:
            InferenceError: what ONNX Runtime says, or how the process has ended; the next call starts it again, but
                not before RESTART_S.
        """
        if self._process.poll() is not None:
            self._restart()
        began, paused_before = time.monotonic(), self._paused()
        try:
            self._stream.write(SHAPE.pack(*images_NHWC.shape))
            self._stream.write(np.ascontiguousarray(images_NHWC).data)
            self._stream.flush()
            cpu_s, rows, classes = REPLY.unpack(read_exactly(self._stream, REPLY.size))
            content = read_exactly(self._stream, 4 * rows * classes if classes else rows)
        except (OSError, EOFError) as error:
            raise InferenceError(f"the process of the engine {self._describe_end()}") from error
        self.denied_s = time.monotonic() - began - (self._paused() - paused_before) - cpu_s
        if not classes:
            raise InferenceError(content.decode())
        return np.frombuffer(content, np.float32).reshape(rows, classes)

    def lower_priority(self) -> None:
        """Give the process the lowest priority, for good. Until then it has the usual one, so that it loads soon."""
        lower_priority(self._process.pid)

    def pause(self) -> None:
        """Stop the process."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process."""
        if self._paused_at is not None:
            self._process.send_signal(signal.SIGCONT)
            self._paused_s = self._paused()
            self._paused_at = None

    def close(self) -> None:
        """End the process."""
        self._process.kill()  # a stopped one too
        self._process.wait()
        with suppress(OSError):  # of what was not sent
            self._stream.close()

    def _paused(self) -> float:
        at = self._paused_at
        return self._paused_s + (time.monotonic() - at if at is not None else 0.0)

    def _start(self, read: Callable[[], bytes]) -> None:
        self._started_at = time.monotonic()
        content = read()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = _start_process(theirs)
            self._stream: BinaryIO = ours.makefile("rwb")  # type: ignore[assignment]
        with suppress(OSError):  # it has ended; the first call says so
            self._stream.write(LENGTH.pack(len(content)))
            self._stream.write(content)
            self._stream.flush()

    def _restart(self) -> None:
        if (wait_s := self._started_at + RESTART_S - time.monotonic()) > 0:
            raise InferenceError(f"the process of the engine {self._describe_end()}; restart in {wait_s:.0f} s")
        self.close()
        try:
            self._start(self._read)
            self.lower_priority()
        except Exception as error:
            raise InferenceError(f"the process of the engine cannot be started again: {error}") from error

    def _describe_end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # the stream ends shortly before the process
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def _start_process(connection: socket.socket) -> "subprocess.Popen[bytes]":
    """Start the process, from a thread that lives as long as it: see `separate_process.end_with_parent`."""
    started: Future[subprocess.Popen[bytes]] = Future()

    def run() -> None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.engine.separate_process", str(connection.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(connection.fileno(),),
                process_group=0,  # Ctrl-C is for this process
            )
        except OSError as error:
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    Thread(target=run, name="separate-engine", daemon=True).start()
    return started.result()


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read so many bytes.

    Raises:
        EOFError: if there are fewer.
    """
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
