"""The process of a SeparateEngine: reads an ONNX graph and then batches, and writes their probabilities."""

import ctypes
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import numpy as np

from serving.engine.onnx import Compute, load_graph
from serving.engine.separate import LENGTH, REPLY, SHAPE, read_exactly

PR_SET_PDEATHSIG = 1
"""Option of prctl(2)."""


def end_with_parent() -> None:
    """End this process when the thread that started it ends, even while it is stopped; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(stream: BinaryIO, load: Callable[[bytes], Compute]) -> None:
    """Load a graph and compute batches, until the other side ends the stream.

    Args:
        stream: see SeparateEngine.
        load: makes the function that computes a batch.
    """
    (size,) = LENGTH.unpack(read_exactly(stream, LENGTH.size))
    run = load(read_exactly(stream, size))
    while True:
        shape = SHAPE.unpack(read_exactly(stream, SHAPE.size))
        images_NHWC = np.frombuffer(read_exactly(stream, int(np.prod(shape, dtype=object))), np.uint8).reshape(shape)
        began = time.process_time()
        try:
            probabilities_NK = run(images_NHWC)
            size_, content = probabilities_NK.shape, np.ascontiguousarray(probabilities_NK, np.float32).tobytes()
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            content = str(error).encode()
            size_ = (len(content), 0)
        stream.write(REPLY.pack(time.process_time() - began, *size_))
        stream.write(content)
        stream.flush()


def main() -> None:
    """Run the process."""
    end_with_parent()
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(EOFError, OSError):
        serve(connection.makefile("rwb"), load_graph)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
