"""Classify, RecordLabels and ListModels on a real server, with valid and invalid requests."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.client import Client, ClientError, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import COLOURS
from tests.support.images import encoded, png_header
from tests.support.waiting import LIMIT_S


def coloured(colour: str, format_: str = "JPEG", size: tuple[int, int] = (90, 70), **options: object) -> bytes:
    return encoded(Image.new("RGB", size, colour), format_, **options)


RED, GREEN, BLUE = (coloured(colour) for colour in ("red", "#00ff00", "blue"))


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        yield pb_grpc.ClassifierStub(channel)


def top(outcome: Prediction | ClientError) -> str:
    assert isinstance(outcome, Prediction), outcome
    return outcome.classes[0][0]


def failure(stub: pb_grpc.ClassifierStub, request: pb.ClassifyRequest) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and field of a call that fails as a whole."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(request, timeout=LIMIT_S)
    status = rpc_status.from_call(caught.value)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    assert info.domain == "pawserve"
    return caught.value.code(), info.reason, bad.field_violations[0].field if bad.field_violations else ""


def test_results_are_in_the_order_of_the_images_and_probabilities_sum_to_one(client: Client) -> None:
    answer = client.classify([RED, GREEN, BLUE, RED])
    assert answer.model == "models/colours/versions/1"
    assert [top(result) for result in answer.results] == ["red", "green", "blue", "red"]
    for result in answer.results:
        probabilities = [probability for _, probability in result.classes]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities == sorted(probabilities, reverse=True)
        assert {label for label, _ in result.classes} == set(COLOURS)
    assert len({result.token for result in answer.results}) == 4


BAD_IMAGES = {
    "0 bytes": (b"", "NOT_AN_IMAGE"),
    "text": (b"I am a cat, believe me", "NOT_AN_IMAGE"),
    "truncated JPEG": (encoded(Image.effect_noise((300, 200), 80).convert("RGB"), "JPEG")[:4000], "TRUNCATED"),
    "60,000 x 60,000 PNG header": (png_header(60_000, 60_000), "TOO_LARGE"),
    "20 MB": (b"\xff\xd8\xff" + b"\0" * 20_000_000, "TOO_LARGE"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 64, "UNSUPPORTED"),
    "HEIC that ends early": (b"\0\0\0\x20ftypheic" + b"\0" * 64, "TRUNCATED"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_has_its_own_status_and_the_others_are_classified(
    client: Client, stub: pb_grpc.ClassifierStub, content: bytes, reason: str
) -> None:
    request = pb.ClassifyRequest(images=[pb.ImageInput(content=data) for data in (RED, content, BLUE)])
    good, bad, other = stub.Classify(request, timeout=LIMIT_S).results
    assert good.prediction.classes[0].label == "red"
    assert other.prediction.classes[0].label == "blue"
    assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    details = {detail.TypeName(): detail for detail in bad.error.details}
    info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details["google.rpc.ErrorInfo"].Unpack(info)
    details["google.rpc.BadRequest"].Unpack(violation)
    assert (info.reason, info.domain) == (reason, "pawserve")
    assert violation.field_violations[0].field == "images[1].content"


GOOD_IMAGES = {
    "CMYK JPEG": encoded(Image.new("RGB", (50, 50), "red").convert("CMYK"), "JPEG"),
    "2-channel PNG": encoded(Image.merge("LA", [Image.new("L", (50, 50), v) for v in (200, 255)]), "PNG"),
    "animated GIF": encoded(
        Image.new("RGB", (50, 50), "red"),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (50, 50), "blue")],
    ),
    "1 x 1": coloured("red", "PNG", (1, 1)),
    "4,000 x 1": coloured("red", "PNG", (4000, 1)),
    "WebP": coloured("red", "WEBP"),
    "TIFF": coloured("red", "TIFF"),
    "BMP": coloured("red", "BMP"),
}


@pytest.mark.parametrize("content", GOOD_IMAGES.values(), ids=GOOD_IMAGES)
def test_unusual_images_are_classified(client: Client, content: bytes) -> None:
    (result,) = client.classify([content]).results
    assert isinstance(result, Prediction)
    if content is not GOOD_IMAGES["2-channel PNG"]:
        assert top(result) == "red"


def test_the_exif_orientation_is_applied(client: Client) -> None:
    """The centre of a tall image is red, whichever way the orientation turns it."""
    pixels = np.zeros((120, 40, 3), np.uint8)
    pixels[:] = (0, 0, 255)
    pixels[40:80] = (255, 0, 0)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert top(client.classify([encoded(Image.fromarray(pixels), "JPEG", exif=exif)]).results[0]) == "red"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.ClassifyRequest(), ("INVALID_ARGUMENT", "COUNT_OUT_OF_RANGE", "images")),
        (
            pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 65),
            ("INVALID_ARGUMENT", "COUNT_OUT_OF_RANGE", "images"),
        ),
        *(
            (
                pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], views=views),
                ("INVALID_ARGUMENT", "VIEWS_OUT_OF_RANGE", "views"),
            )
            for views in (0, -1, 17, 10_000)
        ),
        (
            pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], top_k=0),
            ("INVALID_ARGUMENT", "TOP_K_OUT_OF_RANGE", "top_k"),
        ),
        (
            pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], model="models/birds"),
            ("NOT_FOUND", "MODEL_NOT_FOUND", "model"),
        ),
        (
            pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], model="models/colours/versions/9"),
            ("NOT_FOUND", "MODEL_NOT_FOUND", "model"),
        ),
        (
            pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], model="colours; drop table"),
            ("INVALID_ARGUMENT", "MODEL_NAME_INVALID", "model"),
        ),
    ],
    ids=[
        "empty",
        "65 images",
        "0 views",
        "-1 views",
        "17 views",
        "10,000 views",
        "top 0",
        "model",
        "version",
        "name",
    ],
)
def test_an_invalid_request_fails_as_a_whole(
    stub: pb_grpc.ClassifierStub, request_: pb.ClassifyRequest, expected: tuple[str, str, str]
) -> None:
    code, reason, field = failure(stub, request_)
    assert (code.name, reason, field) == expected


def test_a_message_beyond_the_limit_is_rejected_and_the_server_goes_on(
    stub: pb_grpc.ClassifierStub, client: Client
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(images=[pb.ImageInput(content=b"\0" * (33 * 2**20))]), timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert top(client.classify([GREEN]).results[0]) == "green"


def test_views_and_top_k_are_applied(client: Client) -> None:
    (one,) = client.classify([RED], views=1).results
    (many,) = client.classify([RED], views=16, top_k=2).results
    (again,) = client.classify([RED], views=16, top_k=2).results
    assert (one.views, many.views) == (1, 16)
    assert [label for label, _ in many.classes][0] == "red"
    assert len(many.classes) == 2
    assert many.classes == again.classes
    (all_,) = client.classify([RED], top_k=1000).results
    assert len(all_.classes) == 3


def test_the_model_may_be_named_with_or_without_its_version(client: Client) -> None:
    for name in ("", "models/colours", "models/colours/versions/1"):
        assert client.classify([RED], model=name).model == "models/colours/versions/1"


def test_labels_are_counted_once_and_corrected(client: Client) -> None:
    before = {model.model: model for model in client.statistics()}.get(
        "models/colours/versions/1", pb.ModelStatistics()
    )
    (result,) = client.classify([RED]).results
    ((first,), (again,), (corrected,)) = (
        client.record_labels([(result.token, label)]) for label in ("red", "red", "blue")
    )
    assert (first.predicted, first.label, first.HasField("previous_label")) == ("red", "red", False)
    assert again.previous_label == "red"
    assert (corrected.label, corrected.previous_label) == ("blue", "red")
    (after,) = client.statistics()
    assert after.labels == before.labels + 1
    blue, red = COLOURS.index("blue"), COLOURS.index("red")
    was = before.confusion_matrix[blue].predicted[red] if before.confusion_matrix else 0
    assert after.confusion_matrix[blue].predicted[red] == was + 1


def test_invalid_tokens_and_labels_fail_one_by_one(client: Client) -> None:
    (result,) = client.classify([RED]).results
    token = result.token
    altered = token[:10] + ("A" if token[10] != "A" else "B") + token[11:]
    labels = [
        ("", "red"),
        ("forged", "red"),
        (altered, "red"),
        (token + "AAAA", "red"),
        (token, "cat"),
        (token, ""),
        (token, "red"),
    ]
    results = client.record_labels(labels)
    reasons = [result.reason for result in results if isinstance(result, ClientError)]
    assert reasons == ["TOKEN_INVALID"] * 4 + ["LABEL_UNKNOWN"] * 2
    assert isinstance(results[-1], pb.RecordedLabel)


def test_a_label_in_the_request_is_recorded_and_an_unknown_one_is_the_error_of_its_image(client: Client) -> None:
    count = sum(model.labels for model in client.statistics())
    good, bad = client.classify([RED, RED], labels=["green", "cat"]).results
    assert top(good) == "red"
    assert isinstance(bad, ClientError)
    assert bad.reason == "LABEL_UNKNOWN"
    assert sum(model.labels for model in client.statistics()) == count + 1


def test_too_many_or_no_labels_are_rejected(client: Client) -> None:
    for labels in ([], [("x", "red")] * 10_001):
        with pytest.raises(ClientError) as caught:
            client.record_labels(labels)
        assert caught.value.reason == "COUNT_OUT_OF_RANGE"


def test_models_are_listed(client: Client) -> None:
    (model,) = client.list_models()
    assert model.name == "models/colours/versions/1"
    assert list(model.classes) == list(COLOURS)
    assert model.validation_accuracy == 0.9
    assert (model.max_views, model.default_views, model.recommended_views, model.adaptive_views) == (16, 1, 1, 5)
    assert "fp32" in model.engine


def test_statistics_of_an_unknown_model_are_not_found(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.statistics("models/birds")
    assert caught.value.code == grpc.StatusCode.NOT_FOUND


def test_no_url_is_fetched(client: Client) -> None:
    (result,) = client.classify([b"http://127.0.0.1:1/cat.jpg"]).results
    assert isinstance(result, ClientError)
    assert result.reason == "NOT_AN_IMAGE"
