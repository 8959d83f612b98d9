"""Forms with files: what other libraries write is read back, whatever the files hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from serving.api.errors import ApiError
from serving.web.compression import accepted_encoding
from serving.web.pawserve.multipart import SEARCHED_BYTES, Part, parse_parts

TRICKY = st.sampled_from(
    [b"\r\n", b"--", b"\r\n--", b"\r\n--x", b"\r\n\r\n", b"--x--", b"x", b"\r", b"\n", b"\x00\xff"]
)
FILES = st.lists(st.lists(TRICKY, max_size=8).map(b"".join), min_size=1, max_size=5)


@given(FILES)
def test_the_files_of_a_form_are_read_back(files: list[bytes]) -> None:
    fields = [("file", (f"{index}.jpg", content, "image/jpeg")) for index, content in enumerate(files)]
    body, content_type = encode_multipart_formdata(fields)
    parts = parse_parts(body, content_type, 5)
    assert [part.content for part in parts] == files
    assert [part.file_name for part in parts] == [f"{index}.jpg" for index in range(len(files))]


@pytest.mark.parametrize("before_end", range(12))
def test_a_boundary_is_found_wherever_the_search_begins_anew(before_end: int) -> None:
    head = b"--boundary\r\n\r\n"
    first = b"x" * (SEARCHED_BYTES - len(head) - before_end)
    second = b"y" * (2 * SEARCHED_BYTES - before_end)
    body = head + first + b"\r\n--boundary\r\n\r\n" + second + b"\r\n--boundary--"
    parts = parse_parts(body, "multipart/form-data; boundary=boundary", 2)
    assert [part.content for part in parts] == [first, second]


def test_a_form_of_very_many_parts_is_rejected_before_all_are_counted() -> None:
    with pytest.raises(ApiError, match="has 6 parts or more; a request takes 1 to 5"):
        parse_parts(b"\r\n--x" * 500_000, "multipart/form-data; boundary=x", 5)


def test_parts_may_have_no_headers_and_text_may_surround_them() -> None:
    body = b"before\r\n--x \r\n\r\nfirst\r\n--x\r\nA: b\r\n\r\nsecond\r\n--x--\r\nafter"
    assert parse_parts(body, 'multipart/form-data; boundary="x"', 5) == [
        Part(memoryview(b"first")),
        Part(memoryview(b"second"), b"A: b"),
    ]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="dogs/a 1.jpg"', "dogs/a 1.jpg"),
        (r'form-data; name="file"; filename="say \"woof\" \\ 2.jpg"', 'say "woof" \\ 2.jpg'),
        ('form-data; name="file"; filename="chat été 猫.jpg"', "chat été 猫.jpg"),
        ("form-data; FILENAME=plain.jpg; name=file", "plain.jpg"),
        ('form-data; name="a; filename=b.jpg"', ""),
        (r'form-data; filename="C:\photos\a.jpg"', r"C:\photos\a.jpg"),
        ('form-data; name="file"', ""),
        ('form-data; name="file"; filename=""', ""),
    ],
)
def test_the_file_name_of_a_part_is_that_of_its_content_disposition(disposition: str, name: str) -> None:
    part = Part(memoryview(b""), f"content-type: image/jpeg\r\nContent-Disposition: {disposition}".encode())
    assert part.file_name == name


def test_a_file_name_that_is_not_utf_8_is_an_error_of_the_client() -> None:
    with pytest.raises(ApiError, match="not UTF-8"):
        Part(memoryview(b""), b'Content-Disposition: form-data; filename="\xff.jpg"').file_name  # noqa: B018


@given(st.lists(TRICKY, max_size=30).map(b"".join))
def test_any_bytes_are_parts_or_an_error_of_the_client(body: bytes) -> None:
    reasons = []
    parts: list[Part] = []
    try:
        parts = parse_parts(body, "multipart/form-data; boundary=x", 5)
    except ApiError as error:
        reasons.append(error.reason)
    assert 1 <= len(parts) <= 5 or reasons in (["MESSAGE_INVALID"], ["COUNT_OUT_OF_RANGE"])


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 71, "a; boundary=ü"]
)
def test_a_boundary_is_needed(content_type: str) -> None:
    with pytest.raises(ApiError, match="boundary"):
        parse_parts(b"--x\r\n\r\n\r\n--x--", content_type, 5)


@pytest.mark.parametrize(("accept", "chosen"), [
    ("gzip, deflate, br", "gzip"), ("deflate", "deflate"), ("br;q=1.0, GZIP;q=0.5", "gzip"), ("", ""), ("identity", ""),
    ("gzip;q=0, deflate;q=0.1", "deflate"), ("gzip; q=0.0", ""), ("*", ""),
])  # fmt: skip
def test_the_encoding_is_one_that_the_client_accepts(accept: str, chosen: str) -> None:
    assert accepted_encoding(accept) == chosen
