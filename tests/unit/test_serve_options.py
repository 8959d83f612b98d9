"""What `serve` is told is done or refused in words: no option is quietly replaced, none ends in a stack trace."""

import re
import subprocess
import sys

import pytest

from serving.__main__ import main
from serving.cli import serve_options
from serving.image.views import MAX_VIEWS
from serving.models.layout import LayoutOptions
from serving.settings import Settings
from tests.support.commands import ROOT

REFUSED = [
    ("--listen", "127.0.0.1:99999"),  # gRPC would take the port modulo 65,536
    ("--listen", "127.0.0.1:-1"),
    ("--listen", ":50051"),
    ("--listen", "somewhere"),
    ("--listen", "unix:/run/pawserve.sock"),
    ("--metrics", "9464"),
    ("--otlp-endpoint", "collector"),
    ("--otlp-endpoint", "ftp://collector:4317"),
    ("--otlp-endpoint", "http://collector:0"),
    ("--instances", "99999999"),
    ("--threads", "0"),
    ("--max-views", "65"),
    ("--max-message-mib", "2048"),
    ("--max-connections", "9" * 10),
    ("--max-concurrent-streams", "9" * 5000),
    ("--max-connection-age", "inf"),
    ("--max-connection-age-grace", "nan"),
    ("--keepalive", "0.5"),
    ("--keepalive", "1e9"),
    ("--keepalive-timeout", "soon"),
    ("--poll-seconds", "often"),
    ("--latency-bound-ms", "0"),
    ("--retention", "x"),
]


@pytest.mark.parametrize(("option", "value"), REFUSED, ids=lambda word: word[:24])
def test_what_cannot_be_meant_is_wrong_use_and_said(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", option, value])
    assert ended.value.code == 2
    assert re.search(rf"argument {option}: '{re.escape(value)}' is no \w+", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--max-image-mib 64", "--max-image-mib 64 is more than --max-message-mib 32: no request could carry"),
        ("--max-image-mib 3 --max-message-mib 2", "raise --max-message-mib too"),
        ("--max-views 9 --max-queue-views 8", "--max-views 9 is more than --max-queue-views 8"),
        ("--access-log --log-level warning", "--access-log writes at level info"),
        ("--allow-plaintext-tokens", "--allow-plaintext-tokens has no effect without --auth-tokens"),
        ("--tls-cert server.pem", "--tls-cert and --tls-key belong together"),
        ("--tls-client-ca ca.pem", "needs --tls-cert and --tls-key"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        settings(*options.split())


def settings(*options: str) -> Settings:
    from serving.__main__ import _parser

    return serve_options.to_settings(_parser().parse_args(["serve", *options]))


def test_usual_limits_give_way_to_those_that_are_asked_for() -> None:
    assert settings().options.limits.max_bytes == 16 * 2**20
    assert settings("--max-message-mib", "8").options.limits.max_bytes == 8 * 2**20
    assert settings("--max-message-mib", "64", "--max-image-mib", "64").options.limits.max_bytes == 64 * 2**20
    assert settings().max_views == 16
    assert settings("--max-queue-views", "4").max_views == 4


def test_the_most_views_are_those_that_there_are() -> None:
    assert serve_options.MOST_VIEWS == MAX_VIEWS


def test_the_plan_is_measured_for_as_long_as_the_library_would() -> None:
    assert settings("--models", "models").options.layout == LayoutOptions()


def test_the_help_tells_the_defaults_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    from serving.__main__ import _parser

    options = _parser().parse_args(["serve"])
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    page = " ".join(capsys.readouterr().out.split("options:")[1].split())
    defaults = re.findall(r" (--[a-z-]+) [A-Z:]+ (?:(?! --[a-z]).)*?\((\d[\d.]*)\)", page)
    assert len(defaults) >= 15
    for option, told in defaults:
        assert float(told) == getattr(options, option[2:].replace("-", "_")), option


def test_commands_that_serve_nothing_load_no_inference_libraries() -> None:
    code = (
        "import sys, serving.__main__; print([name for name in ('numpy', 'PIL', 'onnxruntime') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
