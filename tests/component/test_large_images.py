"""Large images of one client, beside small ones of another, on a real server."""

import asyncio
from pathlib import Path

import grpc
import pytest
from PIL import Image

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.calls import LARGE_MESSAGE_BYTES
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


def test_requests_that_are_parsed_in_a_thread_have_the_same_results_and_errors(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    image = encoded(Image.new("RGB", (1600, 1300), "red"), "BMP")
    assert len(image) > LARGE_MESSAGE_BYTES
    with running_server(tmp_path / "models", tmp_path / "state") as address, grpc.insecure_channel(address) as plain:
        stub = pb_grpc.ClassifierStub(plain)
        message = pb.ClassifyRequest(images=[pb.ImageInput(content=image)])
        response = stub.Classify(message, timeout=LIMIT_S)
        assert response.results[0].prediction.classes[0].label == "red"
        with pytest.raises(grpc.RpcError) as caught:
            plain.unary_unary("/pawserve.v1.Classifier/Classify")(message.SerializeToString()[:-1], timeout=LIMIT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "are not a message of this method" in caught.value.details()
