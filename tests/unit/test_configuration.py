"""Options of `serve` from a TOML file and the environment."""

import argparse
from pathlib import Path

import pytest

from serving.cli.configuration import parse_configured, variable_of
from serving.cli.errors import UsageError
from serving.cli.parser import build_parser
from serving.cli.serve_options import to_settings


def parse(*arguments: object, environment: dict[str, str] | None = None) -> argparse.Namespace:
    words = ["serve", *map(str, arguments)]
    return parse_configured(build_parser("serve"), words, environment or {})


def write(folder: Path, text: str) -> Path:
    path = folder / "pawserve.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "127.0.0.1:1"\nmax_views = 3\ngrace = 1.5\n')
    environment = {"PAWSERVE_LISTEN": "127.0.0.1:2", "PAWSERVE_MAX_VIEWS": "4"}
    options = parse("--config", file, "--listen", "127.0.0.1:3", environment=environment)
    assert (options.listen, options.max_views, options.grace) == ("127.0.0.1:3", 4, 1.5)
    assert parse("--config", file, environment={}).listen == "127.0.0.1:1"


def test_a_file_may_hold_every_option(tmp_path: Path) -> None:
    text = """
models = "~/models"        # as on the command line
model = ["pets/3", "birds"]
shadow = ["pets/4=0.25", "birds/2"]
max-batch-size = 8
access-log = true
no-reflection = true
metrics = "127.0.0.1:9100"
auth-tokens = "clients.txt"
"""
    options = parse("--config", write(tmp_path, text))
    settings = to_settings(options)
    assert settings.models == Path("~/models").expanduser()
    assert settings.wanted == ("pets/3", "birds")
    assert [*map(str, settings.shadows)] == ["pets/4=0.25", "birds/2=1"]
    assert settings.options.layout.max_batch_size == 8
    assert (settings.observability.access_log, settings.reflection) == (True, False)
    assert (settings.observability.metrics, settings.security.clients) == ("127.0.0.1:9100", Path("clients.txt"))


def test_models_of_the_command_line_replace_those_of_the_file_and_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, 'model = ["pets", "birds"]')
    assert parse("--config", file, "--model", "fish").model == ["fish"]
    assert parse(environment={"PAWSERVE_MODEL": "pets,birds"}).model == ["pets", "birds"]
    assert parse("--model", "fish", "--model", "pets", environment={"PAWSERVE_MODEL": "cows"}).model == ["fish", "pets"]


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("No", False), ("off", False)])
def test_switches_take_true_and_false(value: str, expected: bool) -> None:
    assert parse(environment={"PAWSERVE_ACCESS_LOG": value}).access_log is expected
    assert parse("--no-access-log", environment={"PAWSERVE_ACCESS_LOG": value}).access_log is False


def test_every_option_has_a_variable() -> None:
    assert variable_of("max_in_flight_mib") == "PAWSERVE_MAX_IN_FLIGHT_MIB"
    assert parse(environment={"PAWSERVE_MAX_IN_FLIGHT_MIB": "64"}).max_in_flight_mib == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lissten = 'x:1'", "lissten is unknown; did you mean listen"),
        ("qqqq = 1", "qqqq is unknown; keys are names of options: access-log"),
        ("no-access-log = true", "is unknown; did you mean"),
        ("max-views = 0", "max-views: '0' is not a whole number from 1"),
        ("grace = true", "grace is True; write one value"),
        ("engine = 'gpu'", "engine is 'gpu'; it is one of auto, cpu"),
        ("access-log = 'maybe'", "access-log is 'maybe'; it is true or false"),
        ("[serve]\nlisten = 'x:1'", "serve is unknown"),
        ("keep-versions = 1\nkeep_versions = 2", "given twice"),
        ("poll-seconds = 1\npoll-interval = 2", "given twice"),
        ("listen = ", "is not TOML: Invalid value"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_where(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as error:
        parse("--config", file)
    assert str(file) in str(error.value)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(UsageError, match="PAWSERVE_LISTEN: .*nowhere"):
        parse(environment={"PAWSERVE_LISTEN": "nowhere"})


def test_a_missing_file_and_one_that_is_too_large_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone.toml cannot be read: No such file"):
        parse("--config", tmp_path / "gone.toml")
    with pytest.raises(UsageError, match="more than 1,048,576 bytes"):
        parse("--config", write(tmp_path, "#" * 2**20 + "#"))
