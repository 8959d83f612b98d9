"""Throughput by number of processes, CPU time of an image by kind of thread, and the hosts that they can feed.

    python -m benchmarks.serving.scaling --bundle MODELS/NAME/VERSION --photos DIR

Each number of processes serves the bundle, and the same images through a graph that computes nothing, so that what is
left is decoding and RPC: what CPUs do beside a GPU. Three kinds of clients: requests of one image, requests of eight,
and streams. All servers run all the time and are measured in turns. The client is a process on the same CPUs; its CPU
time is reported.
"""

import argparse
import asyncio
import hashlib
import itertools
import os
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx.parser

from benchmarks.capacity.hosts import GPUS, ImageCosts, host_capacity
from benchmarks.common import circumstances, heading, images_of, make_parser, table, write_results
from benchmarks.processes import RunningServer, call_in_process, pawserve
from benchmarks.rounds import measure_in_turns, medians
from benchmarks.serving.calls import open_calls, open_channel, stream_images
from benchmarks.serving.load import closed_loop
from benchmarks.serving.thread_times import KINDS, LOOP, WORKERS, read_thread_times
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Artifact, open_bundle
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.processes.shares import CPUS_PER_PROCESS

CLIENTS = 32
"""Connections, which the kernel divides between the processes."""
IMAGES = 250
STREAM_IN_FLIGHT = 8
SINGLE, EIGHT, STREAM = "1 image", "8 images", "streams"
LOADS = (SINGLE, EIGHT, STREAM)
NOTHING = "nothing"
HOST_CPUS = (8, 16, 32, 64)


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "bundle", "photos", rounds=3, seconds=3.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes (%(default)s)")
    results = measure(parser.parse_args())
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all servers and loads."""
    bundle: Path = arguments.bundle
    results = circumstances("scaling") | {"load_average": os.getloadavg()[0]}
    network = open_bundle(bundle).manifest
    with ExitStack() as stack:
        nothing = write_empty_bundle(bundle, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ways = {}
        for engine, folder in ((network.arch, bundle), (NOTHING, nothing)):
            for count in arguments.processes:
                module = "benchmarks.serving.thread_times" if count == 1 else "serving"
                server = pawserve(folder, "--http", "off", "--processes", count, module=module)
                ways[engine, count] = partial(
                    measure_one, stack.enter_context(server), arguments.photos, arguments.seconds
                )
        rounds_of = measure_in_turns(arguments.rounds, LOADS, ways)
    measured = [
        {
            "engine": engine,
            "processes": count,
            "load": load,
            **medians(rounds, "images_per_s", "client_ms"),
            "all_images_per_s": [round(one["images_per_s"], 1) for one in rounds],
            "cpu_ms": medians(rounds, *KINDS) if count == 1 else {},
        }
        for load, row in rounds_of.items()
        for (engine, count), rounds in row.items()
    ]
    return results | {"network": network.arch, "rounds": arguments.rounds, "measured": measured}


def measure_one(server: RunningServer, photos: Path, seconds: float, load: str) -> dict[str, float]:
    """Images a second, and CPU milliseconds for each image: of the client, and of the server by kind of thread."""
    before = read_thread_times(server.pid)
    found = call_in_process(run_load, server.address, photos, load, seconds)
    spent = {kind: 1000 * (now - before[kind]) / found["images"] for kind, now in read_thread_times(server.pid).items()}
    return {"images_per_s": found["images_per_s"], "client_ms": 1000 * found["client_s"] / found["images"], **spent}


def write_empty_bundle(bundle: Path, models: Path) -> Path:
    """Write a bundle that makes the same views and computes nothing; its folder."""
    manifest = open_bundle(bundle).manifest
    classes, crop = len(manifest.classes), manifest.preprocess.crop
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        {NOTHING} (uint8[N, {crop}, {crop}, 3] {INPUT_NAME}) => (float[N, {classes}] {OUTPUT_NAME}) {{
            rows = Shape <start = 0, end = 1> ({INPUT_NAME})
            classes = Constant <value_ints = [{classes}]> ()
            shape = Concat <axis = 0> (rows, classes)
            {OUTPUT_NAME} = ConstantOfShape <value = float[1] {{{1 / classes}}}> (shape)
        }}""")
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    folder = models / manifest.name / str(manifest.version)
    folder.mkdir(parents=True)
    (folder / "model.fp32.onnx").write_bytes(content)
    artifact = Artifact(
        file="model.fp32.onnx", precision="fp32", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
    )
    empty = replace(manifest, artifacts=(artifact,), engines=())
    (folder / "model.json").write_text(empty.to_json(), encoding="utf-8")
    return folder


def run_load(address: str, photos: Path, load: str, seconds: float, clients: int = CLIENTS) -> dict[str, float]:
    """Send images over so many connections; images answered, a second, and this process's CPU seconds.

    Call it in a process of its own.
    """
    inputs = [pb.ImageInput(content=image) for image in images_of(photos, IMAGES)]
    size = 8 if load == EIGHT else 1
    if load == STREAM:
        requests = [pb.ClassifyStreamRequest(image=each).SerializeToString() for each in inputs]
    else:
        batches = (inputs[at : at + size] for at in range(0, len(inputs) - size + 1, size))
        requests = [pb.ClassifyRequest(images=batch).SerializeToString() for batch in batches]
    send = send_over_streams if load == STREAM else send_one_by_one
    found = asyncio.run(send(address, requests, seconds, clients))
    images = size * found["images"]
    return {"images": images, "images_per_s": images / found["elapsed_s"], "client_s": found["cpu_s"]}


async def send_one_by_one(address: str, requests: list[bytes], seconds: float, clients: int) -> dict[str, float]:
    """`closed_loop` with a connection for each client."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_calls("pawserve", address, 1)) for _ in range(clients)]
        return await closed_loop([call for (call,) in opened], requests, seconds)


async def send_over_streams(address: str, requests: list[bytes], seconds: float, clients: int) -> dict[str, float]:
    """As `closed_loop`, with a stream for each client."""
    shared = itertools.cycle(requests)
    began, began_cpu = time.perf_counter(), time.process_time()

    async def stream() -> int:
        async with open_channel(address) as channel:
            responses = stream_images(channel, shared, STREAM_IN_FLIGHT, began + seconds)
            return sum([1 async for _ in responses])

    images = sum(await asyncio.gather(*(stream() for _ in range(clients))))
    return {
        "images": images,
        "elapsed_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - began_cpu,
    }


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    measured = results["measured"]
    rates = {(row["engine"], row["processes"], row["load"]): row for row in measured}
    counts = sorted({row["processes"] for row in measured})
    throughput = [
        (engine, load, *(f"{rates[engine, count, load]['images_per_s']:.0f}" for count in counts))
        for engine in (results["network"], NOTHING)
        for load in LOADS
    ]
    times = [
        (
            row["engine"],
            row["load"],
            *(f"{row['cpu_ms'][kind]:.3f}" for kind in KINDS),
            f"{sum(row['cpu_ms'].values()):.3f}",
            f"{row['client_ms']:.3f}",
        )
        for row in measured
        if row["processes"] == 1
    ]
    costs = {load: to_costs(rates[NOTHING, 1, load]["cpu_ms"]) for load in LOADS}
    return [
        *heading("Processes of a server", results, f"{results['network']}; {CLIENTS} connections."),
        f"Images a second by number of processes, which share the {results['machine']['cpus']} CPUs with the client; "
        f"medians of {results['rounds']} rounds. Before, the machine's load average was "
        f"{results['load_average']:.1f} by other programs. `{NOTHING}` is an engine that computes nothing:",
        table(("engine", "load", *(f"{count} process{'es' * (count > 1)}" for count in counts)), throughput),
        "CPU time of one process in milliseconds an image, by kind of thread:",
        table(("engine", "load", *KINDS, "all", "client"), times),
        *host_tables(costs),
    ]


def to_costs(cpu_ms: dict[str, float]) -> ImageCosts:
    """Costs from milliseconds by kind of thread."""
    other_ms = sum(spent for kind, spent in cpu_ms.items() if kind not in (LOOP, WORKERS))
    return ImageCosts(loop_s=cpu_ms[LOOP] / 1000, workers_s=cpu_ms[WORKERS] / 1000, other_s=other_ms / 1000)


def host_tables(costs: dict[str, ImageCosts]) -> list[str]:
    """What limits hosts with one GPU, with the CPU times of this machine."""
    rows = []
    for gpu, engine in GPUS.items():
        for cpus in HOST_CPUS:
            processes = cpus // CPUS_PER_PROCESS
            found = [host_capacity(costs[load], cpus=cpus, processes=processes, engine=engine) for load in LOADS]
            rows.append((gpu, cpus, processes, *(f"{capacity:,.0f} ({limit})" for capacity, limit in found)))
    needed = [
        (gpu, f"{engine:,.0f}", *(f"{engine * costs[load].all_s:.0f}" for load in LOADS))
        for gpu, engine in GPUS.items()
    ]
    return [
        "Images a second that a host with one GPU answers by these times, and what limits it:",
        table(("GPU", "CPUs", "processes", *LOADS), rows),
        "CPUs that keep one GPU busy:",
        table(("GPU", "images/s of the GPU (assumed)", *LOADS), needed),
    ]


if __name__ == "__main__":
    main()
