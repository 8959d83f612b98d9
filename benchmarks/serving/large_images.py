"""How long a small image waits while another client sends large ones, in this checkout and others.

    git worktree add ../before COMMIT
    python -m benchmarks.serving.large_images --models models --photos photos/valid --others ../before

The large images are PNGs of 49 megapixels, all sent at once, over gRPC and over HTTP, by a process of their own. The
small ones are sent one after the other over gRPC, until all large ones are answered. All servers run all the time and
are measured in turns.
"""

import argparse
import io
import multiprocessing
import statistics
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from benchmarks.common import (
    REPOSITORY,
    absolute_path,
    circumstances,
    heading,
    images_of,
    make_parser,
    table,
    write_results,
)
from benchmarks.processes import ANY_PORT, RunningServer, pawserve
from benchmarks.rounds import measure_in_turns, medians
from benchmarks.serving.calls import GRPC_METHODS
from benchmarks.serving.checkouts import commit_of
from serving.pb.pawserve.v1 import classifier_pb2 as pb

LIMIT_S = 300
TRANSPORTS = ("gRPC", "HTTP")
ALONE = 50
"""Small images that are sent before the large ones."""
OPTIONS = ("--http", ANY_PORT, "--max-message-mib", 128, "--max-image-mib", 100)


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", "photos", rounds=3)
    parser.add_argument("--large", type=int, default=6, metavar="N", help="large images at once (6)")
    parser.add_argument("--others", nargs="*", type=absolute_path, default=[], metavar="FOLDER", help="other checkouts")
    arguments = parser.parse_args()
    results = circumstances("large-images")
    content = large_png()
    results |= {"rounds": arguments.rounds, "large": arguments.large, "size_mb": round(len(content) / 1e6)}
    results["waits"] = measure(arguments, content)
    write_results(results, to_markdown(results))


def measure(arguments: argparse.Namespace, content: bytes) -> list[dict[str, Any]]:
    """The waits in ms, for each transport of the large images and each checkout."""
    (small,) = images_of(arguments.photos, 1)
    with ExitStack() as stack:
        large = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "large.png"
        large.write_bytes(content)
        ways = {}
        for folder in (REPOSITORY, *arguments.others):
            server = stack.enter_context(pawserve(arguments.models, *OPTIONS, folder=folder))
            ways[commit_of(folder)] = partial(measure_one, server, small, large, arguments.large)
        measured = measure_in_turns(arguments.rounds, TRANSPORTS, ways)
    return [
        {"large over": transport, "checkout": name, "rounds": rounds}
        for transport, row in measured.items()
        for name, rounds in row.items()
    ]


def measure_one(server: RunningServer, small: bytes, large: Path, count: int, transport: str) -> dict[str, float]:
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
            post = urllib.request.Request(f"http://{address}/v1/classify", content, {"Content-Type": "image/png"})
            begun.set()
            for answer in pool.map(lambda _: urllib.request.urlopen(post, timeout=LIMIT_S).read(), range(count)):
                assert b"prediction" in answer
            return
        request = pb.ClassifyRequest(images=[pb.ImageInput(content=content)]).SerializeToString()
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(GRPC_METHODS["pawserve"], None, pb.ClassifyResponse.FromString)
            begun.set()
            for response in pool.map(lambda _: call(request, timeout=LIMIT_S), range(count)):
                assert response.results[0].HasField("prediction")


def large_png() -> bytes:
    """A PNG of 49 megapixels, of which one channel is noise."""
    pixels_HWC = np.zeros((7000, 7000, 3), np.uint8)
    pixels_HWC[..., 1] = np.random.default_rng(0).integers(0, 256, (7000, 7000), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the result page."""
    rows = []
    for each in results["waits"]:
        found = medians(each["rounds"])
        longest = ", ".join(f"{one['longest']:,.0f}" for one in each["rounds"])
        rows.append((each["large over"], each["checkout"], f"{found['alone']:.1f}", f"{found['median']:.1f}", longest))
    head = ("large images over", "checkout", "alone ms", "median ms", "longest ms, each round")
    facts = f"{results['large']} PNGs of {results['size_mb']} MB and 49 megapixels at once; waits of small images."
    return [*heading("Large images", results, facts), table(head, rows)]


if __name__ == "__main__":
    main()
