"""Options of `serve`: each is used as given or rejected with a message, never replaced in silence."""

import re

import pytest

from serving.cli.parser import COMMANDS, build_parser, main
from serving.cli.serve_options import to_settings
from serving.models.layout import LayoutOptions
from serving.settings import Settings

REFUSED = [
    ("--listen", "127.0.0.1:99999"),  # gRPC would take the port modulo 65,536
    ("--listen", "127.0.0.1:-1"),
    ("--listen", ":50051"),
    ("--listen", "somewhere"),
    ("--listen", "unix:"),
    ("--metrics", "9464"),
    ("--otlp-endpoint", "collector"),
    ("--otlp-endpoint", "ftp://collector:4317"),
    ("--otlp-endpoint", "http://collector:0"),
    ("--instances", "99999999"),
    ("--threads", "0"),
    ("--max-views", "65"),
    ("--views", "best"),
    ("--max-message-mib", "2048"),
    ("--max-connections", "9" * 10),
    ("--max-concurrent-streams", "9" * 5000),
    ("--max-connection-age", "inf"),
    ("--max-connection-age-grace", "nan"),
    ("--keepalive", "0.5"),
    ("--keepalive", "1e9"),
    ("--keepalive-timeout", "soon"),
    ("--poll-seconds", "often"),
    ("--retention", "x"),
]


@pytest.mark.parametrize(("option", "value"), REFUSED, ids=lambda word: word[:24])
def test_values_that_are_not_allowed_are_wrong_use(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", option, value])
    assert ended.value.code == 2
    assert re.search(rf"argument (--\S+/)?{option}: '{re.escape(value)}' is not an? \w+", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["stats", "predict"])
def test_plots_are_png_files(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--plot", "matrix.pngg"])
    assert ended.value.code == 2
    assert "argument --plot: 'matrix.pngg' does not end in .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--max-image-mib 64", "--max-image-mib 64 is more than --max-message-mib 32: no request could hold"),
        ("--max-image-mib 3 --max-message-mib 2", "raise --max-message-mib too"),
        ("--max-views 9 --max-queue-views 8", "--max-views 9 is more than --max-views-in-flight 8"),
        ("--views 20", "--views 20 is more than 16, the most that a request may ask for; raise --max-views"),
        ("--access-log --log-level warning", "--access-log writes at level info"),
        ("--allow-plaintext-tokens", "has no effect without --clients"),
        ("--tls-cert server.pem", "--tls-cert and --tls-key belong together"),
        ("--tls-client-ca ca.pem", "which needs --tls-cert and --tls-key"),
    ],
)
def test_options_that_contradict_each_other_are_rejected(options: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        settings(*options.split())


def settings(*options: str) -> Settings:
    return to_settings(build_parser("serve").parse_args(["serve", *options]))


def test_default_limits_adapt_to_the_limits_that_are_given() -> None:
    assert settings().options.limits.max_bytes == 16 * 2**20
    assert settings("--max-message-mib", "8").options.limits.max_bytes == 8 * 2**20
    assert settings("--max-message-mib", "64", "--max-image-mib", "64").options.limits.max_bytes == 64 * 2**20
    assert settings().max_views == 16
    assert settings("--max-queue-views", "4").max_views == 4


def test_views_of_a_request_that_names_none_are_one_or_what_the_operator_chose() -> None:
    assert settings().default_views == 1
    assert settings("--views", "3").default_views == 3
    assert settings("--views", "recommended").default_views is None


def test_the_defaults_of_the_layout_are_those_of_the_library() -> None:
    assert settings("--models", "models").options.layout == LayoutOptions()


def test_the_help_states_the_actual_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    def parsed(*options: str) -> dict[str, object]:
        found = vars(build_parser("serve").parse_args(["serve", *options]))
        return {name: value for name, value in found.items() if name not in ("command", "configured")}  # parsers

    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    page = " ".join(capsys.readouterr().out.split("options:")[1].split())
    defaults = re.findall(r" (--[a-z-]+) [A-Z:]+ (?:(?! --[a-z]).)*?\((\d[\d.]*)\)", page)
    assert len(defaults) >= 12
    for option, stated in defaults:
        assert parsed(option, stated) == parsed(), option


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 400


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("--poll-seconds", "--poll-interval", "7"), ("--max-queue-views", "--max-views-in-flight", "40")],
)
def test_earlier_names_of_options_are_accepted(old: str, new: str, value: str) -> None:
    assert settings(old, value) == settings(new, value)
