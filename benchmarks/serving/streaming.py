"""ClassifyStream beside the staged limit of the same machine: decode all images, then compute them, in process.

    python -m benchmarks.serving.streaming --bundle MODELS/NAME/VERSION --photos DIR

In turns, a client sends images over one stream, 64 of them unanswered at any time; and a process without a server
decodes as many images on all CPUs and then computes them on all CPUs, with the best of a few batch sizes. The client
shares the machine with the server, so its CPU time is subtracted: with C CPUs, a run of T seconds in which the client
used c seconds of CPU time (by its own process clock) left the server C T - c of them, as much as a machine of its own
has in T - c / C seconds. The staged process has no client.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import circumstances, heading, images_of, make_parser, table, write_results
from benchmarks.in_process import InProcessClassifier
from benchmarks.processes import call_in_process, pawserve
from benchmarks.serving.calls import open_channel, stream_images
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.cpus import available_cpus
from serving.system.memory import keep_freed_memory

IMAGES = 300
BATCH_SIZES = (1, 4, 8)
WARM_UP_S = 0.5


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "bundle", "photos", rounds=5, seconds=3.0)
    parser.add_argument("--in-flight", type=int, default=64, help="images sent and not answered (64)")
    results = measure(parser.parse_args())
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds, each with a stream and a staged run."""
    results = circumstances("streaming", ())
    cpus = available_cpus()
    rounds = []
    with pawserve(arguments.bundle) as server:
        for _ in range(arguments.rounds):
            stream = call_in_process(measure_stream, server.address, arguments)
            staged = call_in_process(measure_staged, arguments.bundle, arguments.photos)
            without_client_s = stream["elapsed_s"] - stream["cpu_s"] / cpus
            staged["images_per_s"] = max(staged["by_batch_size"].values())
            ratio = stream["images"] / without_client_s / staged["images_per_s"]
            rounds.append({"stream": stream, "staged": staged, "ratio": ratio})
    ratio = statistics.median(one["ratio"] for one in rounds)
    return results | {"in_flight": arguments.in_flight, "rounds": rounds, "ratio": ratio}


def measure_staged(folder: Path, photos: Path) -> dict[str, Any]:
    """Images a second of both stages together, by batch size; on all CPUs, with single-threaded sessions."""
    keep_freed_memory()
    classifier, cpus = InProcessClassifier(folder), available_cpus()
    with ThreadPoolExecutor(cpus) as threads:

        def timed(work: Callable[[Any], Any], items: Sequence[Any]) -> tuple[list[Any], float]:
            list(threads.map(work, items[: 4 * cpus]))
            began = time.perf_counter()
            return list(threads.map(work, items)), time.perf_counter() - began

        views, decode_s = timed(classifier.decode, images_of(photos, IMAGES))
        by_size = {}
        for size in BATCH_SIZES:
            batches = [[np.concatenate(views[at : at + size])] for at in range(0, len(views), size)]
            by_size[str(size)] = len(views) / (decode_s + timed(classifier.classify, batches)[1])
    return {"decode_s": decode_s, "images": len(views), "by_batch_size": by_size}


def measure_stream(address: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Keep so many images unanswered over one stream; count results and this process's CPU time meanwhile."""
    return asyncio.run(_measure_stream(address, arguments))


async def _measure_stream(address: str, arguments: argparse.Namespace) -> dict[str, float]:
    requests = [
        pb.ClassifyStreamRequest(id=str(index), image=pb.ImageInput(content=image)).SerializeToString()
        for index, image in enumerate(images_of(arguments.photos, IMAGES))
    ]
    began = began_cpu = ended = ended_cpu = 0.0
    images = 0
    first = time.perf_counter() + WARM_UP_S
    until = first + arguments.seconds
    async with open_channel(address) as channel:
        async for response in stream_images(channel, itertools.cycle(requests), arguments.in_flight, until):
            last = response
            now = time.perf_counter()
            if not began and now >= first:
                began, began_cpu = now, time.process_time()
            elif began and now <= until:
                images += 1
                ended, ended_cpu = now, time.process_time()
    parsed = pb.ClassifyStreamResponse.FromString(last)
    if not parsed.result.HasField("prediction"):
        raise RuntimeError(f"the server answers {parsed}")
    return {"images": images, "elapsed_s": ended - began, "cpu_s": ended_cpu - began_cpu}


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    rows = []
    for number, one in enumerate(results["rounds"], 1):
        stream, staged = one["stream"], one["staged"]["images_per_s"]
        rate, part = stream["images"] / stream["elapsed_s"], stream["cpu_s"] / stream["elapsed_s"]
        without_client = one["ratio"] * staged
        rows.append(
            (number, f"{rate:.0f}", f"{part:.0%}", f"{without_client:.0f}", f"{staged:.0f}", f"{one['ratio']:.2f}")
        )
    head = ("round", "stream images/s", "client, of one CPU", "without the client", "staged", "ratio")
    return [
        *heading("ClassifyStream beside the staged limit", results),
        f"One stream with {results['in_flight']} images in flight. The client's CPU time, by its process clock, is "
        "subtracted: images / (elapsed - client's CPU time / CPUs), over decode-then-compute in process.",
        table(head, rows),
        f"Median ratio {results['ratio']:.2f}.",
    ]


if __name__ == "__main__":
    main()
