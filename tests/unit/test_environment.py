"""Environment variables with mistyped names are rejected, and options win over variables."""

import argparse
import re
from pathlib import Path

import pytest

from serving.cli.configuration import KNOWN, PREFIX, check_environment, option_variables
from serving.cli.connection import add_client_options, open_client
from serving.cli.errors import CommandError, UsageError
from serving.cli.parser import build_parser
from tests.support.commands import ROOT


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("STATISTIC_FILE", "STATISTICS_FILE"),
        ("STATISTICS_URL", "STATISTICS"),
        ("TOKENFILE", "TOKEN_FILE"),
        ("ENGINESS", "ENGINES"),
        ("TLS_CERTS", "TLS_CERT"),
    ],
)
def test_a_mistyped_name_is_rejected_with_the_name_that_was_meant(given: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"{PREFIX}{given} is unknown; did you mean {PREFIX}{meant}\?"):
        check_environment({f"{PREFIX}{given}": "x", "PATH": "/bin"})


def test_known_variables_those_of_kubernetes_and_others_are_allowed() -> None:
    read = {f"{PREFIX}{name}": "x" for name in KNOWN}
    added = ("SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR", "SERVER_PORT", "STATISTICS_PORT")
    check_environment(
        {**read, **{f"{PREFIX}{name}": "x" for name in added}, "STATISTIC_FILE": "x", "pawserve_token": ""}
    )


def test_all_variables_that_the_code_reads_are_known() -> None:
    folders = [ROOT / "serving", ROOT / "export", ROOT / "deploy"]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(rf"environ[^\n]*\"{PREFIX}([A-Z_]+)\"", text))
    assert read >= {"STATISTICS", "SERVER", "PHOTOS"}
    assert read <= set(KNOWN)


def test_variables_of_options_of_a_server_do_not_disturb_other_commands() -> None:
    names = option_variables(build_parser("serve").parse_args(["serve"]))
    assert "ENGINE" in names
    check_environment({f"{PREFIX}{name}": "x" for name in names})


def test_a_mistyped_option_of_a_server_is_rejected_by_the_server() -> None:
    names = option_variables(build_parser("serve").parse_args(["serve"]))
    with pytest.raises(UsageError, match="did you mean PAWSERVE_LISTEN"):
        check_environment({"PAWSERVE_LISTENS": "x"}, others=names)


def test_options_win_over_a_variable_without_its_partner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key in the environment, without its certificate, is an error only where no option replaces it."""
    monkeypatch.setenv("PAWSERVE_TLS_KEY", "elsewhere.key")
    for name in ("client.pem", "client.key"):
        (tmp_path / name).write_text("")
    parser = argparse.ArgumentParser()
    add_client_options(parser)
    both = ["--tls-cert", str(tmp_path / "client.pem"), "--tls-key", str(tmp_path / "client.key")]
    with open_client(parser.parse_args(both)):
        pass
    with (
        pytest.raises(CommandError, match="a TLS key was given without its certificate"),
        open_client(parser.parse_args([])),
    ):
        pass
