"""Images are cut out of large requests before they are parsed; the requests mean the same."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from serving.api.errors import ApiError
from serving.models.image_data import COPIED_BYTES, copy_view
from serving.pb.inference import open_inference_pb2 as oip
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.rpc.encoding import to_varint
from serving.rpc.large_requests import LARGE_BYTES, LargeRequest, cut_images
from serving.rpc.messages import make_parser

PADDING = b"\x01" * LARGE_BYTES
"""Makes a request a large one."""


class Method:
    """The part of gRPC's method handler that the parser uses."""

    def __init__(self, message: Any) -> None:
        self.request_deserializer: Callable[[bytes], Message] = message.FromString


def parse(encoded: bytes, message: Any) -> Any:
    return make_parser(Method(message))(encoded)


contents = st.lists(st.binary(max_size=300), max_size=4)
texts = st.text(max_size=20)


def images_of(encoded: Sequence[bytes], labels: Sequence[str]) -> list[pb.ImageInput]:
    labels = [*labels, *[""] * len(encoded)]
    return [pb.ImageInput(content=content, label=label) for content, label in zip(encoded, labels, strict=False)]


@given(contents, st.lists(texts, max_size=4), texts, st.booleans())
def test_a_large_request_is_the_same_without_its_images(
    encoded: list[bytes], labels: list[str], model: str, adaptive: bool
) -> None:
    images = images_of([*encoded, PADDING], labels)
    whole = pb.ClassifyRequest(model=model, images=images, adaptive=adaptive, views=3)
    large = parse(whole.SerializeToString(), pb.ClassifyRequest)
    assert isinstance(large, LargeRequest)
    assert [bytes(content) for content in large.contents] == [image.content for image in whole.images]
    for image in whole.images:
        image.ClearField("content")
    assert large.message == whole


@given(st.lists(st.one_of(st.binary(max_size=40), st.none()), max_size=4), texts)
def test_of_several_images_in_one_field_the_last_content_counts(parts: list[bytes | None], label: str) -> None:
    """As protobuf merges messages in a field that is not repeated."""
    encoded = pb.ClassifyStreamRequest(id="7", image=pb.ImageInput(content=PADDING, label="old")).SerializeToString()
    for part in parts:
        image = pb.ImageInput(label=label) if part is None else pb.ImageInput(content=part, label=label)
        encoded += pb.ClassifyStreamRequest(image=image).SerializeToString()
    whole = pb.ClassifyStreamRequest.FromString(encoded)
    large = parse(encoded, pb.ClassifyStreamRequest)
    assert [bytes(content) for content in large.contents] == [whole.image.content]
    assert (large.message.id, large.message.image.label) == ("7", whole.image.label)
    assert not large.message.image.content


@given(contents)
def test_raw_tensors_are_cut_out(raws: list[bytes]) -> None:
    whole = oip.ModelInferRequest(model_name="colours", id="9", raw_input_contents=[*raws, PADDING])
    large = parse(whole.SerializeToString(), oip.ModelInferRequest)
    assert [bytes(raw) for raw in large.contents] == [*raws, PADDING]
    assert large.message == oip.ModelInferRequest(model_name="colours", id="9")


def test_a_request_without_an_image_has_no_content() -> None:
    large = parse(pb.ClassifyStreamRequest(id="x" * LARGE_BYTES).SerializeToString(), pb.ClassifyStreamRequest)
    assert (large.contents, large.message.id) == ([], "x" * LARGE_BYTES)


def test_small_requests_and_messages_without_images_are_parsed_as_they_are() -> None:
    small = pb.ClassifyRequest(images=[pb.ImageInput(content=b"image")])
    assert parse(small.SerializeToString(), pb.ClassifyRequest) == small
    labels = pb.RecordLabelsRequest(labels=[pb.LabelInput(token="t" * LARGE_BYTES, label="cat")])
    assert parse(labels.SerializeToString(), pb.RecordLabelsRequest) == labels


ENCODED = pb.ClassifyRequest(images=[pb.ImageInput(content=PADDING, label="cat")]).SerializeToString()


@pytest.mark.parametrize(
    "encoded",
    [
        ENCODED[:-1],
        ENCODED + b"\x0a\xff",  # a length that does not end
        ENCODED + b"\x07",  # no such wire type
        ENCODED + b"\x00\x00",  # field 0
        b"\x0b" + ENCODED,  # a group that does not end
    ],
)
def test_a_large_malformed_request_gives_the_error_of_a_small_one(encoded: bytes) -> None:
    with pytest.raises(ApiError, match="are not a message of this method"):
        parse(encoded, pb.ClassifyRequest)


def test_images_inside_an_unknown_group_are_no_images() -> None:
    """protobuf skips the whole group, whatever is in it."""
    group, end = to_varint(99 << 3 | 3), to_varint(99 << 3 | 4)
    encoded = group + pb.ClassifyRequest(images=[pb.ImageInput(content=b"inside")]).SerializeToString() + end + ENCODED
    assert cut_images(encoded, pb.ClassifyRequest.DESCRIPTOR) is None
    assert [image.label for image in parse(encoded, pb.ClassifyRequest).images] == ["cat"]


@pytest.mark.parametrize("size", [0, 1, COPIED_BYTES, COPIED_BYTES + 1])
def test_a_view_is_copied_whole(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    assert copy_view(memoryview(content)[3 : 3 + size]) == content[3 : 3 + size]
