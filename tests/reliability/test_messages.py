"""Messages with random fields and values, and random bytes: each gets a response or a documented status.

PAWSERVE_FUZZ_EXAMPLES is the number of each kind.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.client import Client, Prediction
from serving.pb.inference import open_inference_pb2 as oip
from serving.pb.inference import open_inference_pb2_grpc as oip_grpc
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.golden.draw import FOLDER
from tests.support.bundles import COLOURS, write_bundle
from tests.support.commands import ROOT
from tests.support.images import encoded
from tests.support.messages import any_message
from tests.support.waiting import LIMIT_S

EXAMPLES = int(os.environ.get("PAWSERVE_FUZZ_EXAMPLES", "60"))
RED = encoded(Image.new("RGB", (8, 6), "red"), "PNG")
PIXELS = bytes(2 * 4 * 5 * 3)
CODES = {code.value[0]: code.name for code in grpc.StatusCode}
DOCUMENTED = {
    (row[1], reason)
    for row in re.finditer(r"^\| ([A-Z_]+) \| (.+?) \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    for reason in re.findall(r"`(\w+)`|(none)", row[2])
    for reason in reason
    if reason
}
"""(code, reason); "none" for those of gRPC itself."""
DOCUMENTED |= {("INVALID_ARGUMENT", reason) for reason in ("TENSOR_INVALID", "PARAMETER_INVALID")}
# docs/open-inference.md

fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LIKELY = {
    "model": st.sampled_from(["", "models/colours", "models/colours/versions/1", "models/colours/versions/9"]),
    "content": st.one_of(
        st.just(RED), st.sampled_from([path.read_bytes() for path in sorted(FOLDER.glob("picture.*")) if path.suffix])
    ),
    "label": st.sampled_from(["", *COLOURS]),
    "name": st.sampled_from(["images", "pixels", "probabilities", "tokens", "colours"]),
    "model_name": st.just("colours"),
    "model_version": st.sampled_from(["", "1"]),
    "datatype": st.sampled_from(["BYTES", "UINT8"]),
    "shape": st.sampled_from([0, 1, 2, 3, 4, 5]),
    "bytes_contents": st.just(RED),
    "raw_input_contents": st.sampled_from([len(RED).to_bytes(4, "little") + RED, PIXELS]),
    "key": st.sampled_from(["views", "top_k", "adaptive", "timeout", "classification", "binary_data"]),
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to a server that still works after all tests and has logged no stack trace."""
    folder = tmp_path_factory.mktemp("messages")
    write_bundle(folder / "models")
    command = [sys.executable, "-m", "serving", "serve", "--models", str(folder / "models")]
    command += ["--state", str(folder / "state"), "--listen", "127.0.0.1:0"]
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            ready = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
            assert ready, log.read_text()
            with grpc.insecure_channel(ready[1]) as channel:
                yield channel
            with Client(ready[1], timeout_s=LIMIT_S) as client:
                (result,) = client.classify([RED]).results
                assert isinstance(result, Prediction)
                assert result.classes[0][0] == "red"
        finally:
            server.terminate()
            server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0
    assert "Traceback" not in log.read_text()


def check_status(status: status_pb2.Status) -> None:
    """Check that code and reason are in docs/api.md, and are neither a server error nor out of memory."""
    info = error_details_pb2.ErrorInfo()
    reason = "none"
    for detail in status.details:
        if detail.Unpack(info):
            reason = info.reason
    assert (CODES[status.code], reason) in DOCUMENTED, status
    assert CODES[status.code] != "INTERNAL", status
    assert reason != "OUT_OF_MEMORY", status


def check_error(error: grpc.RpcError, *, its_own_timeout: bool = False) -> None:
    """As `check_status`; a call whose deadline has passed was stuck."""
    assert its_own_timeout or error.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    status = rpc_status.from_call(error)
    check_status(status or status_pb2.Status(code=error.code().value[0], message=error.details()))


def response_of(call: grpc.UnaryUnaryMultiCallable, request: Message | bytes) -> Message | None:
    """None for a documented error."""
    try:
        return call(request, timeout=LIMIT_S)
    except grpc.RpcError as error:
        check_error(error, its_own_timeout="timeout" in str(request))
        return None


@fuzzed
@given(any_message(pb.ClassifyRequest, LIKELY))
def test_any_classify_request(channel: grpc.Channel, request: pb.ClassifyRequest) -> None:
    response = response_of(pb_grpc.ClassifierStub(channel).Classify, request)
    if response is not None:
        assert len(response.results) == len(request.images)
        for result in response.results:
            if result.HasField("error"):
                check_status(result.error)


@fuzzed
@given(st.lists(any_message(pb.ClassifyStreamRequest, LIKELY), max_size=6))
def test_any_stream_of_requests(channel: grpc.Channel, requests: list[pb.ClassifyStreamRequest]) -> None:
    try:
        answers = [*pb_grpc.ClassifierStub(channel).ClassifyStream(iter(requests), timeout=LIMIT_S)]
    except grpc.RpcError as error:
        check_error(error)
        return
    assert sorted(each.id for each in answers) == sorted(each.id for each in requests)
    for each in answers:
        if each.result.HasField("error"):
            check_status(each.result.error)


@fuzzed
@given(st.data())
def test_any_labels(channel: grpc.Channel, data: st.DataObject) -> None:
    stub = pb_grpc.ClassifierStub(channel)
    token = stub.Classify(pb.ClassifyRequest(images=[pb.ImageInput(content=RED)])).results[0].prediction.token
    near = st.integers(0, len(token) - 1).map(lambda at: token[:at] + "A" + token[at + 1 :])
    likely = {**LIKELY, "token": st.one_of(st.just(token), near, st.just(token + "="))}
    request = data.draw(any_message(pb.RecordLabelsRequest, likely))
    response = response_of(stub.RecordLabels, request)
    if response is not None:
        for sent, result in zip(request.labels, response.results, strict=True):
            if result.HasField("error"):
                check_status(result.error)
            else:
                assert (sent.token, sent.label) == (token, result.recorded.label)


@fuzzed
@given(any_message(pb.GetStatisticsRequest, LIKELY))
def test_any_request_for_statistics(channel: grpc.Channel, request: pb.GetStatisticsRequest) -> None:
    response_of(pb_grpc.ClassifierStub(channel).GetStatistics, request)


@fuzzed
@given(any_message(pb.GetComparisonRequest, LIKELY))
def test_any_request_for_a_comparison(channel: grpc.Channel, request: pb.GetComparisonRequest) -> None:
    response_of(pb_grpc.ClassifierStub(channel).GetComparison, request)


@fuzzed
@given(any_message(pb.WatchStatisticsRequest, LIKELY))
def test_any_request_to_watch_the_statistics(channel: grpc.Channel, request: pb.WatchStatisticsRequest) -> None:
    watch = pb_grpc.ClassifierStub(channel).WatchStatistics(request, timeout=LIMIT_S)
    try:
        assert next(watch)
    except grpc.RpcError as error:
        check_error(error)
    finally:
        watch.cancel()


@fuzzed
@given(any_message(oip.ModelInferRequest, LIKELY))
def test_any_request_of_the_open_inference_protocol(channel: grpc.Channel, request: oip.ModelInferRequest) -> None:
    response = response_of(oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer, request)
    assert response is None or response.id == request.id


@fuzzed
@given(
    st.sampled_from(
        [
            "pawserve.v1.Classifier/Classify",
            "pawserve.v1.Classifier/RecordLabels",
            "pawserve.v1.Classifier/GetStatistics",
            "pawserve.v1.Classifier/GetComparison",
            "inference.GRPCInferenceService/ModelInfer",
            "inference.GRPCInferenceService/RepositoryIndex",
            "grpc.health.v1.Health/Check",
        ]
    ),
    st.binary(max_size=300),
)
def test_bytes_that_are_not_a_message(channel: grpc.Channel, method: str, content: bytes) -> None:
    response_of(channel.unary_unary(f"/{method}"), content)


@fuzzed
@given(
    st.sampled_from(
        [
            "pawserve.v1.Classifier/ClassifyStream",
            "inference.GRPCInferenceService/ModelStreamInfer",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ]
    ),
    st.lists(st.binary(max_size=300), max_size=4),
)
def test_streams_of_bytes_that_are_not_messages(channel: grpc.Channel, method: str, contents: list[bytes]) -> None:
    try:
        for _ in channel.stream_stream(f"/{method}")(iter(contents), timeout=LIMIT_S):
            pass
    except grpc.RpcError as error:
        check_error(error)


@pytest.mark.parametrize(
    ("method", "entry"),
    [
        ("pawserve.v1.Classifier/RecordLabels", b"\x0a\x00"),
        ("pawserve.v1.Classifier/Classify", b"\x12\x00"),
        ("inference.GRPCInferenceService/ModelInfer", b"\x2a\x00"),
    ],
)
def test_millions_of_empty_entries_are_rejected_before_they_are_parsed(
    channel: grpc.Channel, method: str, entry: bytes
) -> None:
    with pytest.raises(grpc.RpcError, match="more than 50,000 fields") as caught:
        channel.unary_unary(f"/{method}")(entry * 4_000_000, timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
