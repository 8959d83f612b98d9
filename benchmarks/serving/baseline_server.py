"""The rival: what anybody would write in an hour. An asyncio gRPC server with one work-conserving batcher.

Encoded photo in, JSON out, with the same decode and the same engine as pawserve's, and nothing of what a server needs
beside speed: no messages, checks, limits, tokens, statistics, cancellation or errors.
"""

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from serving.bundle.manifest import open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import choose_precision, load_engines
from serving.image.views import make_views


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    for name in ("instances", "threads", "max-batch-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    preprocess, classes = bundle.manifest.preprocess, bundle.manifest.classes
    plan = EngineLayout(
        instances=arguments.instances, threads=arguments.threads, max_batch_size=arguments.max_batch_size
    )
    engines = load_engines(bundle, choose_precision(bundle.manifest), plan)
    loop = asyncio.get_running_loop()
    decoders, runners = ThreadPoolExecutor(2), ThreadPoolExecutor(len(engines))
    queue: asyncio.Queue = asyncio.Queue()

    def decode(photo):
        return make_views(preprocess.canvas(photo), preprocess.crop)

    async def classify(photo, context):
        done = loop.create_future()
        queue.put_nowait((await loop.run_in_executor(decoders, decode, photo), done))
        return json.dumps(dict(zip(classes, (await done).tolist(), strict=True))).encode()

    async def batch(engine):
        while True:
            entries = [await queue.get()]
            while len(entries) < plan.max_batch_size and not queue.empty():
                entries.append(queue.get_nowait())
            images_NHWC = np.concatenate([views for views, _ in entries])
            probabilities_NK = await loop.run_in_executor(runners, engine.run, images_NHWC)
            for (_, done), probabilities_K in zip(entries, probabilities_NK, strict=True):
                done.set_result(probabilities_K)

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "baseline", {"Classify": grpc.unary_unary_rpc_method_handler(classify)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}:", flush=True)
    await asyncio.gather(*map(batch, engines))


if __name__ == "__main__":
    asyncio.run(main())
