"""How long a small image waits while another client sends large ones, in this checkout and others.

    git worktree add ../before COMMIT
    python -m benchmarks.serving.large_images --models models --photos photos/valid --others ../before

The large images are PNGs of 49 megapixels, all sent at once, over gRPC and over HTTP, by a process of their own. The
small ones are sent one after the other over gRPC, until all large ones are answered. All servers run all the time and
are measured in turns.
"""

import argparse
import http.client
import io
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from benchmarks.common import (
    ANY_PORT,
    REPOSITORY,
    SERVING_LIBRARIES,
    RunningServer,
    absolute_path,
    circumstances,
    heading,
    images_of,
    make_parser,
    running,
    table,
    write_results,
)
from benchmarks.serving.calls import GRPC_METHODS
from benchmarks.serving.checkouts import commit_of
from serving.pb.pawserve.v1 import classifier_pb2 as pb

LIMIT_S = 300
TRANSPORTS = ("gRPC", "HTTP")
ALONE = 50
"""Small images that are sent before the large ones."""
LIMITS = ("--max-message-mib", 128, "--max-image-mib", 100)


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", rounds=3)
    parser.add_argument("--large", type=int, default=6, metavar="N", help="large images at once (6)")
    parser.add_argument("--others", nargs="*", type=absolute_path, default=[], metavar="FOLDER", help="other checkouts")
    arguments = parser.parse_args()
    results = circumstances("large-images", SERVING_LIBRARIES)
    content = large_png()
    results |= {"rounds": arguments.rounds, "large": arguments.large, "size_mb": round(len(content) / 1e6)}
    results["waits"] = measure(arguments, content)
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace, content: bytes) -> list[dict[str, Any]]:
    """The waits in ms, for each transport of the large images and each checkout."""
    (small,) = images_of(arguments.photos, 1)
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {}
    with ExitStack() as stack:
        large = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "large.png"
        large.write_bytes(content)
        servers: dict[str, RunningServer] = {}
        for folder in (REPOSITORY, *arguments.others):
            state = stack.enter_context(tempfile.TemporaryDirectory())
            options = ("serve", "--models", arguments.models, "--state", state, "--listen", ANY_PORT)
            server = running("serving", *options, "--http", ANY_PORT, *LIMITS, folder=folder)
            servers[commit_of(folder)] = stack.enter_context(server)
        for _ in range(arguments.rounds):
            for transport in TRANSPORTS:
                for name, server_ in servers.items():
                    found = measure_one(server_, transport, small, large, arguments.large)
                    rounds.setdefault((transport, name), []).append(found)
    return [
        {"large over": transport, "checkout": name, "rounds": measured}
        for (transport, name), measured in rounds.items()
    ]


def measure_one(server: RunningServer, transport: str, small: bytes, large: Path, count: int) -> dict[str, float]:
    """The waits of small images in ms: median alone; median and longest while large ones are in progress."""
    address = server.address if transport == "gRPC" else server.http_address
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    sender = context.Process(target=send_large, args=(transport, address, large, count, begun))
    request = pb.ClassifyRequest(images=[pb.ImageInput(content=small)]).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(GRPC_METHODS["pawserve"])

        def wait_ms() -> float:
            began = time.perf_counter()
            call(request, timeout=LIMIT_S)
            return 1000 * (time.perf_counter() - began)

        alone = [wait_ms() for _ in range(ALONE)]
        sender.start()
        begun.wait(LIMIT_S)
        waits = [wait_ms()]
        while sender.is_alive():
            waits.append(wait_ms())
        sender.join()
    if sender.exitcode:
        raise RuntimeError("the large images were not classified")
    return {"alone": statistics.median(alone), "median": statistics.median(waits), "longest": max(waits)}


def send_large(transport: str, address: str, path: Path, count: int, begun: Event) -> None:
    """Send an image `count` times at once, over gRPC or HTTP."""
    content = path.read_bytes()
    with ThreadPoolExecutor(count) as pool:
        if transport == "HTTP":
            begun.set()
            assert set(pool.map(lambda _: post(address, content), range(count))) == {200}
            return
        request = pb.ClassifyRequest(images=[pb.ImageInput(content=content)]).SerializeToString()
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(GRPC_METHODS["pawserve"], None, pb.ClassifyResponse.FromString)
            begun.set()
            for response in pool.map(lambda _: call(request, timeout=LIMIT_S), range(count)):
                assert response.results[0].HasField("prediction")


def post(address: str, content: bytes) -> int:
    """The status of one request over HTTP."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)
    connection.request("POST", "/v1/classify", content)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def large_png() -> bytes:
    """A PNG of 49 megapixels, of which one channel is noise."""
    pixels_HWC = np.zeros((7000, 7000, 3), np.uint8)
    pixels_HWC[..., 1] = np.random.default_rng(0).integers(0, 256, (7000, 7000), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The lines of the result page."""
    rows = []
    for each in results["waits"]:
        rounds = each["rounds"]
        alone, median = (statistics.median(one[name] for one in rounds) for name in ("alone", "median"))
        longest = ", ".join(f"{one['longest']:,.0f}" for one in rounds)
        rows.append((each["large over"], each["checkout"], f"{alone:.1f}", f"{median:.1f}", longest))
    head = ("large images over", "checkout", "alone ms", "median ms", "longest ms, each round")
    facts = f"{results['large']} PNGs of {results['size_mb']} MB and 49 megapixels at once; waits of small images."
    return [*heading("Large images", results, facts), *table(head, rows)]


if __name__ == "__main__":
    main()
