"""A server that runs out of memory: the requests concerned fail with OUT_OF_MEMORY, and it recovers."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.client import Client, ClientError, Retry
from serving.pb.inference import open_inference_pb2 as oip
from serving.pb.inference import open_inference_pb2_grpc as oip_grpc
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.images import RED, encoded
from tests.support.servers import CountedServer, counted_server
from tests.support.waiting import LIMIT_S

HUGE = encoded(Image.new("RGB", (7000, 7000), "red"), "PNG")  # takes 200 MB and more
SPARE = 64 * 2**20
KINDS = ("Classify", "ClassifyStream", "ModelInfer")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    folder = tmp_path_factory.mktemp("out_of_memory")
    write_bundle(folder / "models")
    with counted_server(folder / "models", folder / "state") as server, Client(server.address) as client:
        client.classify([RED] * 16)  # so that the threads have their stacks
        yield server


def limit(server: CountedServer, more: int | None) -> None:
    """Limit its address space to so many bytes more than now; None removes the limit."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0])
    most = resource.RLIM_INFINITY if more is None else pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def statuses(address: str, kind: str) -> list[status_pb2.Status]:
    """The status of the huge image and, where each image has its own, of a small one beside it."""
    with grpc.insecure_channel(address) as channel:
        if kind == "Classify":
            request = pb.ClassifyRequest(images=[pb.ImageInput(content=content) for content in (HUGE, RED)])
            return [
                result.error for result in pb_grpc.ClassifierStub(channel).Classify(request, timeout=LIMIT_S).results
            ]
        if kind == "ClassifyStream":
            requests = [pb.ClassifyStreamRequest(image=pb.ImageInput(content=content)) for content in (HUGE, RED)]
            for number, each in enumerate(requests):
                each.id = str(number)
            answers = pb_grpc.ClassifierStub(channel).ClassifyStream(iter(requests), timeout=LIMIT_S)
            return [answer.result.error for answer in sorted(answers, key=lambda answer: answer.id)]
        request = oip.ModelInferRequest(model_name="colours")
        tensor = request.inputs.add(name="images", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(HUGE)
        try:
            oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=LIMIT_S)
        except grpc.RpcError as error:
            return [rpc_status.from_call(error)]
        return [status_pb2.Status()]


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_is_an_error_of_one_image_and_passes(server: CountedServer, kind: str) -> None:
    limit(server, SPARE)
    try:
        huge, *others = statuses(server.address, kind)
    finally:
        limit(server, None)
    assert huge.code == code_pb2.RESOURCE_EXHAUSTED
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in huge.details)
    assert info.reason == "OUT_OF_MEMORY"
    assert any(detail.Unpack(retry) for detail in huge.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    assert not any(detail.Is(error_details_pb2.BadRequest.DESCRIPTOR) for detail in huge.details)
    assert all(other.code == code_pb2.OK for other in others)
    assert all(status.code == code_pb2.OK for status in statuses(server.address, kind))
    assert server.counts()["rows"] == 0


def test_classify_many_tries_such_an_image_again(server: CountedServer) -> None:
    limit(server, SPARE)
    try:
        with Client(server.address, retry=Retry(attempts=2, initial_s=0.01, max_s=0.01)) as client:
            failed, red = sorted(client.classify_many([HUGE, RED]), key=lambda answer: answer.index)
            assert isinstance(failed.result, ClientError)
            assert failed.result.reason == "OUT_OF_MEMORY"
            assert not isinstance(red.result, ClientError)
            again = client.classify_many([HUGE])
            limit(server, None)
            assert not isinstance(next(again).result, ClientError)
    finally:
        limit(server, None)
