"""Large images of one client, beside small ones of another, on a real server."""

import asyncio
from pathlib import Path

import grpc
from PIL import Image

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

LARGE = 4


def request(size: tuple[int, int], format_: str) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(images=[pb.ImageInput(content=encoded(Image.new("RGB", size, "red"), format_))])


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own; gRPC would share one between equal channels of a process."""
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def test_a_small_image_is_answered_before_the_next_of_another_client_s_large_ones(tmp_path: Path) -> None:
    """In each of the gaps between two answers to large images, a whole small request finds its place."""
    large, small = request((6000, 6000), "PNG"), request((80, 60), "JPEG")
    order: list[str] = []

    async def run(address: str) -> None:
        finished: asyncio.Queue[None] = asyncio.Queue()
        async with channel(address) as greedy_channel, channel(address) as polite_channel:
            greedy, polite = pb_grpc.ClassifierStub(greedy_channel), pb_grpc.ClassifierStub(polite_channel)

            async def ask_large() -> None:
                response = await greedy.Classify(large, timeout=LIMIT_S)
                assert response.results[0].prediction.classes[0].label == "red"
                order.append("large")
                finished.put_nowait(None)

            await polite.Classify(small, timeout=LIMIT_S)
            tasks = [asyncio.create_task(ask_large()) for _ in range(LARGE)]
            for _ in range(LARGE - 1):
                await finished.get()
                await polite.Classify(small, timeout=LIMIT_S)
                order.append("small")
            await asyncio.gather(*tasks)

    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state") as address:
        asyncio.run(run(address))
    assert order == ["large", "small"] * (LARGE - 1) + ["large"]
