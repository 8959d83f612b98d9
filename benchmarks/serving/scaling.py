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
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.capacity.hosts import GPUS, ImageCosts, cpus_for, host_limits
from benchmarks.common import (
    ANY_PORT,
    SERVING_LIBRARIES,
    RunningServer,
    call_in_process,
    circumstances,
    heading,
    images_of,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.thread_times import KINDS, LOOP, WORKERS, read_thread_times
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Artifact, open_bundle
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.processes.shares import CPUS_PER_PROCESS

CLIENTS = 32
"""Connections, which the kernel divides between the processes."""
IMAGES = 250
TIMEOUT_S = 600.0
"""Of each call: on a busy machine, a server refuses what it cannot answer in time."""
STREAM_IN_FLIGHT = 8
SINGLE, EIGHT, STREAM = "1 image", "8 images", "streams"
LOADS = (SINGLE, EIGHT, STREAM)
NOTHING = "nothing"
HOST_CPUS = (8, 16, 32, 64)
SERVICE = "/pawserve.v1.Classifier/"
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "bundle", "photos", rounds=3, seconds=3.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes (%(default)s)")
    results = measure(parser.parse_args())
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all servers and loads."""
    bundle: Path = arguments.bundle
    results = circumstances("scaling", SERVING_LIBRARIES) | {"load_average": os.getloadavg()[0]}
    network = open_bundle(bundle).manifest
    with ExitStack() as stack:
        nothing = write_empty_bundle(bundle, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        servers: dict[tuple[str, int], RunningServer] = {}
        for engine, folder in ((network.arch, bundle), (NOTHING, nothing)):
            for count in arguments.processes:
                state = stack.enter_context(tempfile.TemporaryDirectory())
                served = ("--models", folder.parents[1], "--model", f"{folder.parent.name}/{folder.name}")
                module = "benchmarks.serving.thread_times" if count == 1 else "serving"
                options = (*served, "--state", state, "--listen", ANY_PORT, "--http", "off", "--processes", count)
                servers[engine, count] = stack.enter_context(running(module, "serve", *options))
        rounds: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
        for _ in range(arguments.rounds):
            for load, (key, server) in itertools.product(LOADS, servers.items()):
                before = read_thread_times(server.pid)
                found = run_load_apart(server.address, arguments.photos, load, arguments.seconds)
                after = read_thread_times(server.pid)
                found["cpu_ms"] = {kind: 1000 * (after[kind] - before[kind]) / found["images"] for kind in KINDS}
                rounds.setdefault((*key, load), []).append(found)
    measured = []
    for (engine, count, load), found_all in rounds.items():
        rates = [one["images_per_s"] for one in found_all]
        row = {"engine": engine, "processes": count, "load": load, "images_per_s": statistics.median(rates)}
        row["all_images_per_s"] = [round(rate, 1) for rate in rates]
        row["client_ms"] = 1000 * statistics.median(one["client_s"] / one["images"] for one in found_all)
        if count == 1:
            row["cpu_ms"] = {kind: statistics.median(one["cpu_ms"][kind] for one in found_all) for kind in KINDS}
        measured.append(row)
    return results | {"network": network.arch, "rounds": arguments.rounds, "measured": measured}


def write_empty_bundle(bundle: Path, models: Path) -> Path:
    """Write a bundle that makes the same views and computes nothing; its folder."""
    manifest = open_bundle(bundle).manifest
    classes, crop = len(manifest.classes), manifest.preprocess.crop
    constants: dict[str, np.ndarray[Any, Any]] = {
        "even": np.full((1, classes), 1 / classes, np.float32),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "classes": np.array([classes], np.int64),
    }
    nodes = [
        helper.make_node("Shape", [INPUT_NAME], ["shape"]),
        helper.make_node("Slice", ["shape", "first", "second"], ["rows"]),
        helper.make_node("Concat", ["rows", "classes"], ["wanted"], axis=0),
        helper.make_node("Expand", ["even", "wanted"], [OUTPUT_NAME]),
    ]
    graph = helper.make_graph(
        nodes,
        NOTHING,
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", crop, crop, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
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


def run_load_apart(address: str, photos: Path, load: str, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """`run_load` in a process of its own."""
    return call_in_process(run_load, address, photos, load, seconds, clients)


def run_load(address: str, photos: Path, load: str, seconds: float, clients: int) -> dict[str, Any]:
    """Send images over so many connections; images answered, a second, and this process's CPU seconds."""
    return asyncio.run(_run_load(address, images_of(photos, IMAGES), load, seconds, clients))


async def _run_load(address: str, images: list[bytes], load: str, seconds: float, clients: int) -> dict[str, Any]:
    size = 8 if load == EIGHT else 1
    inputs = [pb.ImageInput(content=image) for image in images]
    if load == STREAM:
        requests = [pb.ClassifyStreamRequest(image=each).SerializeToString() for each in inputs]
    else:
        batches = (inputs[at : at + size] for at in range(0, len(inputs) - size + 1, size))
        requests = [pb.ClassifyRequest(images=batch).SerializeToString() for batch in batches]
    shared = itertools.cycle(requests)
    began = time.perf_counter()
    end = began + seconds
    total = 0

    def count() -> bool:
        nonlocal total
        total += size
        return time.perf_counter() < end

    async def call(channel: grpc.aio.Channel) -> None:
        method = channel.unary_unary(SERVICE + "Classify")
        while True:
            await method(next(shared), timeout=TIMEOUT_S)
            if not count():
                return

    async def stream(channel: grpc.aio.Channel) -> None:
        free = asyncio.Semaphore(STREAM_IN_FLIGHT)

        async def send() -> AsyncIterator[bytes]:
            while time.perf_counter() < end:
                await free.acquire()
                yield next(shared)

        async for _ in channel.stream_stream(SERVICE + "ClassifyStream")(send(), timeout=TIMEOUT_S):
            free.release()
            count()

    channels = [grpc.aio.insecure_channel(address, options=OPTIONS) for _ in range(clients)]
    began_cpu = time.process_time()
    await asyncio.gather(*((stream if load == STREAM else call)(channel) for channel in channels))
    client_s, elapsed_s = time.process_time() - began_cpu, time.perf_counter() - began
    for channel in channels:
        await channel.close()
    return {"images": total, "images_per_s": total / elapsed_s, "client_s": client_s}


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
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
        "",
        *table(("engine", "load", *(f"{count} process{'es' * (count > 1)}" for count in counts)), throughput),
        "",
        "CPU time of one process in milliseconds an image, by kind of thread:",
        "",
        *table(("engine", "load", *KINDS, "all", "client"), times),
        "",
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
            found = [host_limits(costs[load], cpus=cpus, processes=processes, engine=engine) for load in LOADS]
            rows.append((gpu, cpus, processes, *(f"{each.capacity:,.0f} ({each.limit})" for each in found)))
    needed = [
        (gpu, f"{engine:,.0f}", *(f"{cpus_for(costs[each], engine):.0f}" for each in LOADS))
        for gpu, engine in GPUS.items()
    ]
    return [
        "Images a second that a host with one GPU answers by these times, and what limits it:",
        "",
        *table(("GPU", "CPUs", "processes", *LOADS), rows),
        "",
        "CPUs that keep one GPU busy:",
        "",
        *table(("GPU", "images/s of the GPU (assumed)", *LOADS), needed),
    ]


if __name__ == "__main__":
    main()
