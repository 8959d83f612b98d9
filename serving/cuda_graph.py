"""Work on a CUDA stream in; the same work as one graph out, launched with one call instead of one for each kernel."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from serving.cuda import CudaError, call, load_cudart


class CudaGraph:
    """Work that was captured once, with its addresses and shapes, and is launched again and again."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` does on a stream; it has run there before, so that nothing is allocated meanwhile.

        Raises:
            CudaError: if the work cannot be captured.
            Exception: what `enqueue` raises; the stream is then as before.
        """
        self._cudart = cudart = load_cudart()
        self._stream = stream
        # thread-local: what other threads allocate meanwhile does not break this capture
        call(cudart.cudaStreamBeginCapture, stream, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        except BaseException:
            with suppress(CudaError):  # the first failure is the one to tell
                unfinished = call(cudart.cudaStreamEndCapture, stream)
                call(cudart.cudaGraphDestroy, unfinished)
            raise
        graph = call(cudart.cudaStreamEndCapture, stream)
        try:
            self._executable: Any = call(cudart.cudaGraphInstantiate, graph, 0)
        finally:
            call(cudart.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """Put the work on the stream.

        Raises:
            CudaError: if it cannot be launched.
        """
        call(self._cudart.cudaGraphLaunch, self._executable, self._stream)

    def close(self) -> None:
        """Free it; the stream must be idle. A second call does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            call(self._cudart.cudaGraphExecDestroy, executable)
