"""The simplest comparable server: an asyncio gRPC server with one work-conserving batcher.

It takes an encoded image and returns JSON. It decodes and computes as pawserve does, and has nothing else that a server
needs: no messages, checks, limits, tokens, statistics, cancellation or errors.
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import make_parser
from benchmarks.processes import ANY_PORT
from serving.bundle.manifest import Bundle, open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import OnnxEngine, OnnxModel, choose_precision


def main() -> None:
    """Parse the arguments and serve."""
    parser = make_parser(__doc__, "bundle")
    parser.add_argument("--layout", type=int, nargs=3, required=True, help="instances, threads and largest batch")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    instances, threads, max_batch_size = arguments.layout
    layout = EngineLayout(instances=instances, threads=threads, max_batch_size=max_batch_size)
    engines = OnnxModel(bundle, bundle.artifact(choose_precision(bundle.manifest))).make_engines(layout)
    asyncio.run(serve(bundle, engines, layout.max_batch_size))


async def serve(bundle: Bundle, engines: Sequence[OnnxEngine], max_batch_size: int) -> None:
    """Serve until the process is stopped."""
    preprocess, classes = bundle.manifest.preprocess, bundle.manifest.classes
    loop = asyncio.get_running_loop()
    decoders, runners = ThreadPoolExecutor(2), ThreadPoolExecutor(len(engines))
    queue: asyncio.Queue[tuple[NDArray[np.uint8], asyncio.Future[NDArray[np.float32]]]] = asyncio.Queue()

    async def classify(image: bytes, context: Any) -> bytes:
        done: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        queue.put_nowait((await loop.run_in_executor(decoders, preprocess.views, image), done))
        return json.dumps(dict(zip(classes, (await done).tolist(), strict=True))).encode()

    async def run_batches(engine: OnnxEngine) -> None:
        while True:
            entries = [await queue.get()]
            while len(entries) < max_batch_size and not queue.empty():
                entries.append(queue.get_nowait())
            images_NHWC = np.concatenate([views_1HWC for views_1HWC, _ in entries])
            probabilities_NK = await loop.run_in_executor(runners, engine.run, images_NHWC)
            for (_, done), probabilities_K in zip(entries, probabilities_NK, strict=True):
                done.set_result(probabilities_K)

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "baseline", {"Classify": grpc.unary_unary_rpc_method_handler(classify)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(ANY_PORT)
    await server.start()
    print(f"ready on 127.0.0.1:{port}:", flush=True)
    await asyncio.gather(*map(run_batches, engines))


if __name__ == "__main__":
    main()
