"""Settings of a server reach its other processes unchanged, as JSON."""

import argparse
import json
import struct
from pathlib import Path

import pytest

from serving.cli.serve_options import add_serve_options, to_settings
from serving.processes.child import Start, parse_start, send_start
from serving.processes.plain import to_plain
from serving.processes.shares import share_settings
from serving.settings import Settings


class Socket:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.content = b""

    def sendall(self, content: bytes) -> None:
        self.content += content


def parse(*options: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    return to_settings(parser.parse_args([*options]))


@pytest.mark.parametrize(
    "options",
    [
        (),
        (
            "--http",
            "off",
            "--retention",
            "30",
            "--shadow",
            "pets/2=0.5",
            "--views",
            "recommended",
            "--metrics",
            "127.0.0.1:0",
        ),
        (
            "--listen",
            "0.0.0.0:1",
            "--http",
            "0.0.0.0:2",
            "--http-origin",
            "https://a.example",
            "--model",
            "a",
            "--model",
            "b/2",
        ),
        (
            "--tls-cert",
            "a.pem",
            "--tls-key",
            "b.pem",
            "--tls-client-ca",
            "c.pem",
            "--clients",
            "d",
            "--token-key",
            "e f",
        ),
        ("--instances", "2", "--threads", "1", "--max-batch-size", "4", "--engine", "cpu", "--precision", "fp32"),
    ],
)
def test_settings_are_the_same_in_the_other_process(options: tuple[str, ...]) -> None:
    start = Start(settings=share_settings(parse(*options), 2), log_format="json", log_level="INFO")
    end = Socket()
    send_start(end, start)  # type: ignore[arg-type]
    assert end.content.index(b"\n") == len(end.content) - 1
    assert parse_start(end.content) == start
    assert json.loads(end.content)["log_level"] == "INFO"


def test_a_pickle_is_not_read() -> None:
    with pytest.raises(ValueError, match="0x80"):
        parse_start(b"\x80\x04K\x01.")


def test_what_has_no_json_is_an_error_of_the_supervisor() -> None:
    with pytest.raises(TypeError, match="a Struct cannot be sent to another process"):
        to_plain({"path": Path("a"), "other": struct.Struct("I")})
