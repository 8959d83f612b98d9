"""ClassifyStream against the staged limit of the same machine: decode everything, then compute everything, in process.

    python -m benchmarks.serving.streaming --bundle MODELS/NAME/VERSION --photos DIR

By turns: a client sends photos over one stream, 64 of them unanswered at any time; and a process without a server
decodes as many photos on all CPUs, and then computes them on all CPUs, with the better of a few batch sizes. The client
shares the machine with the server, so what it takes is taken out: with C CPUs, a run of T seconds in which the client's
process took c seconds of CPU time (user and system, by its own process clock) left the server C T - c of them, as much
as a machine of its own has in T - c / C seconds. The staged process has no client.
"""

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.serving.throughput import RESULTS, cpu_name, photos_of, running
from serving.bundle.manifest import open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import load_engines
from serving.image.views import make_views
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.cpus import available_cpus
from serving.system.memory import keep_freed_memory

METHOD = "/pawserve.v1.Classifier/ClassifyStream"
PHOTOS = 300
BATCH_SIZES = (1, 4, 8)
WARM_UP_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="MODELS/NAME/VERSION, with an INT8 graph")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--in-flight", type=int, default=64, help="photos sent and not answered (64)")
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many are told (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each stream is measured (3)")
    for name in ("--address", "--staged"):  # what this module runs in processes of their own
        parser.add_argument(name, nargs="?", const="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.staged is not None:
        json.dump(measure_staged(arguments.bundle, arguments.photos), sys.stdout)
        return 0
    if arguments.address:
        json.dump(asyncio.run(measure_stream(arguments)), sys.stdout)
        return 0
    results = measure(arguments)
    report = to_markdown(results)
    print(report)
    path = RESULTS / f"{results['date'][:10]}-streaming"
    path.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    path.with_suffix(".md").write_text(report)
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds, each with a stream and a staged run."""
    bundle: Path = arguments.bundle.resolve()
    cpus = available_cpus()
    own = ["-m", "benchmarks.serving.streaming", "--bundle", str(bundle), "--photos", str(arguments.photos)]
    own += ["--in-flight", str(arguments.in_flight), "--seconds", str(arguments.seconds)]
    rounds = []
    with tempfile.TemporaryDirectory() as state:
        serve = ["-m", "serving", "serve", "--models", str(bundle.parents[1]), "--listen", "127.0.0.1:0"]
        serve += ["--model", f"{bundle.parent.name}/{bundle.name}", "--state", state]
        with running(serve) as address:
            for _ in range(arguments.rounds):
                stream, staged = _in_a_process([*own, "--address", address]), _in_a_process([*own, "--staged"])
                alone_s = stream["elapsed_s"] - stream["cpu_s"] / cpus
                staged["images_per_s"] = max(staged["by_batch_size"].values())
                ratio = stream["images"] / alone_s / staged["images_per_s"]
                rounds.append({"stream": stream, "staged": staged, "ratio": ratio})
    return {
        "what": "streaming",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.serving.streaming --bundle MODELS/NAME/VERSION --photos PHOTOS "
        f"--rounds {arguments.rounds} --seconds {arguments.seconds:g}",
        "in_flight": arguments.in_flight,
        "machine": {"cpu": cpu_name(), "cpus": cpus, "python": platform.python_version()},
        "rounds": rounds,
        "ratio": statistics.median(one["ratio"] for one in rounds),
    }


def measure_staged(folder: Path, photos: Path) -> dict[str, Any]:
    """Images a second of both stages together, for several batch sizes; on all CPUs, with single-threaded sessions."""
    keep_freed_memory()
    bundle = open_bundle(folder)
    preprocess, cpus = bundle.manifest.preprocess, available_cpus()
    (engine,) = load_engines(bundle, "int8", EngineLayout(instances=1, threads=1, max_batch_size=max(BATCH_SIZES)))
    contents = photos_of(photos, PHOTOS)

    def decode(content: bytes) -> Any:
        return make_views(preprocess.canvas(content), preprocess.crop)

    with ThreadPoolExecutor(cpus) as threads:

        def timed(work: Callable[[Any], Any], items: Sequence[Any]) -> tuple[list[Any], float]:
            list(threads.map(work, items[: 4 * cpus]))
            begin = time.perf_counter()
            return list(threads.map(work, items)), time.perf_counter() - begin

        images, decode_s = timed(decode, contents)
        by_size = {}
        for size in BATCH_SIZES:
            batches = [np.concatenate(images[at : at + size]) for at in range(0, len(images), size)]
            by_size[str(size)] = len(images) / (decode_s + timed(engine.run, batches)[1])
    return {"decode_s": decode_s, "images": len(images), "by_batch_size": by_size}


async def measure_stream(arguments: argparse.Namespace) -> dict[str, float]:
    """Keep so many photos unanswered over one stream, and count answers and this process's CPU time meanwhile."""
    requests = [
        pb.ClassifyStreamRequest(id=str(index), image=pb.ImageInput(content=photo)).SerializeToString()
        for index, photo in enumerate(photos_of(arguments.photos, PHOTOS))
    ]
    places = asyncio.Semaphore(arguments.in_flight)
    until = time.perf_counter() + WARM_UP_S + arguments.seconds

    async def send() -> AsyncIterator[bytes]:
        for request in itertools.cycle(requests):
            await places.acquire()
            if time.perf_counter() > until:
                return
            yield request

    async with grpc.aio.insecure_channel(arguments.address) as channel:
        stream = channel.stream_stream(METHOD)(send(), timeout=arguments.seconds + 60)
        begin = cpu = images = 0.0
        first = time.perf_counter() + WARM_UP_S
        end = end_cpu = 0.0
        async for answer in stream:
            last = answer
            places.release()
            now = time.perf_counter()
            if not begin and now >= first:
                begin, cpu = now, time.process_time()
            elif begin and now <= until:
                images += 1
                end, end_cpu = now, time.process_time()
    answered = pb.ClassifyStreamResponse.FromString(last)
    if not answered.result.HasField("prediction"):
        raise RuntimeError(f"the server answers {answered}")
    return {"images": images, "elapsed_s": end - begin, "cpu_s": end_cpu - cpu}


def to_markdown(results: dict[str, Any]) -> str:
    """The results as a page for people."""
    machine = results["machine"]
    lines = [
        f"# ClassifyStream against the staged limit, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}; Python {machine['python']}.",
        "",
        f"    {results['command']}",
        "",
        f"One stream with {results['in_flight']} photos in flight. The client's CPU time, by its process's "
        "clock, is taken out: images / (elapsed - client's CPU time / CPUs), over decode-then-compute in process.",
        "",
        "| round | stream images/s | client, share of one CPU | without the client | staged | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(results["rounds"], 1):
        stream, staged = one["stream"], one["staged"]["images_per_s"]
        rate, share = stream["images"] / stream["elapsed_s"], stream["cpu_s"] / stream["elapsed_s"]
        lines.append(
            f"| {number} | {rate:.0f} | {share:.0%} | {one['ratio'] * staged:.0f} | {staged:.0f} | {one['ratio']:.2f} |"
        )
    lines += ["", f"Median ratio {results['ratio']:.2f}."]
    return "\n".join(lines) + "\n"


def _in_a_process(arguments: Sequence[str]) -> dict[str, Any]:
    answer = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, check=True, timeout=120)
    parsed: dict[str, Any] = json.loads(answer.stdout)
    return parsed


if __name__ == "__main__":
    sys.exit(main())
