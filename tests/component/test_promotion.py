"""`promote` and `rollback` on the command line, and a running server that follows them."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.client import Client
from serving.statistics.store import StatisticsStore
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.comparisons import record_pairs
from tests.support.servers import HttpServerProcess, http_server
from tests.support.statistics import RED
from tests.support.waiting import LIMIT_S, eventually

NOBODY = "127.0.0.1:1"
"""An address without a server."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Versions 3 and 4 of one model, in `models`."""
    for number in (3, 4):
        write_bundle(tmp_path / "models", version=number)
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[HttpServerProcess]:
    """Serves version 3; version 4 is its shadow."""
    with http_server(folder, "--poll-interval", "0.1", "--shadow", "colours/4") as server:
        yield server


@pytest.fixture
def client(server: HttpServerProcess) -> Iterator[Client]:
    with Client(server.address, timeout_s=LIMIT_S) as client:
        yield client


def command(folder: Path, verb: str, *arguments: object, server: str = NOBODY) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    asked = ("--server", server, "--timeout", "5") if verb == "promote" else ()
    ended = run("serving", verb, "colours", *arguments, "--models", folder / "models", *asked)
    return ended.returncode, ended.stdout, " ".join(ended.stderr.split())


def choice(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "models" / "colours" / "primary.json").read_text()))


def primary_version(client: Client) -> str:
    return client.classify([RED], model="models/colours").model.rpartition("/")[2]


def primaries(client: Client) -> list[str]:
    return [model.name.rpartition("/")[2] for model in client.list_models() if model.primary]


def test_a_promoted_shadow_answers_until_it_is_rolled_back(
    folder: Path, server: HttpServerProcess, client: Client
) -> None:
    assert (primary_version(client), primaries(client)) == ("3", ["3"])
    code, output, errors = command(folder, "promote", 4, server=server.address)
    assert (code, errors) == (0, "")
    assert "colours: version 4 is now primary, instead of version 3" in output
    assert eventually(lambda: primaries(client) == ["4"])
    assert primary_version(client) == "4"
    assert [model.HasField("shadow_share") for model in client.list_models()] == [False, False]
    listed = run("serving", "models", "--server", server.address).stdout
    assert "models/colours/versions/4  READY  PRIMARY" in listed
    assert "versions/4 (" in (healthy := run("serving", "health", "--server", server.address).stdout)
    assert healthy.count("primary") == 1

    code, output, _ = command(folder, "rollback")
    assert (code, output) == (0, "colours: version 3 is now primary, instead of version 4\n")
    assert eventually(lambda: primaries(client) == ["3"])
    assert [model.HasField("shadow_share") for model in client.list_models()] == [False, True]
    assert "is now 4, as " in server.process.stderr
    assert "is now 3, as " in server.process.stderr


def test_if_better_promotes_only_what_the_labels_decide(
    folder: Path, server: HttpServerProcess, client: Client
) -> None:
    with StatisticsStore(folder / "state" / "statistics.sqlite") as store:
        record_pairs(store, "colours", 3, 4, [("red", 50, True, True), ("blue", 5, False, True)])
        code, _, errors = command(folder, "promote", 4, "--if-better", server=server.address)
        assert code == 1
        assert "colours/4 is not promoted: colours/3 90.9%, colours/4 100.0%, difference +9.1%" in errors
        assert "more labels decide" in errors
        assert not (folder / "models" / "colours" / "primary.json").exists()
        record_pairs(store, "colours", 3, 4, [("blue", 15, False, True)])
    code, output, errors = command(folder, "promote", 4, "--if-better", server=server.address)
    assert (code, errors) == (0, "")
    assert "colours/4 is better" in output
    [change] = choice(folder)["history"]  # type: ignore[misc]
    assert (change["version"], change["replaced"]) == (4, 3)  # type: ignore[index]
    assert "e-value" in change["figures"]  # type: ignore[index]
    assert eventually(lambda: primaries(client) == ["4"])
    assert "colours/4 is better" in server.process.stderr
    code, _, errors = command(folder, "promote", 3, "--if-better", server=server.address)
    assert (code, choice(folder)["primary"]) == (1, 4)
    assert "colours/4 is better" in errors


def test_promotions_and_rollbacks_before_a_server_has_followed_are_not_lost(folder: Path) -> None:
    with http_server(folder, "--poll-interval", "0", "--shadow", "colours/4") as server:
        for _ in range(2):  # the server answers with version 3 all the time
            code, output, _ = command(folder, "promote", 4, server=server.address)
            assert (code, "instead of version 3" in output) == (0, True)
            assert f"undo it with: pawserve rollback colours --models {folder / 'models'}" in output
            code, output, _ = command(folder, "promote", 3, server=server.address)
            assert (code, "instead of version 4" in output) == (0, True)
            code, output, _ = command(folder, "rollback")
            assert (code, output) == (0, "colours: version 4 is now primary, instead of version 3\n")
            assert command(folder, "rollback")[0] == 0
            assert choice(folder)["primary"] == 3


def test_a_server_that_starts_later_follows_the_choice(folder: Path) -> None:
    code, output, _ = command(folder, "promote", 3)
    assert code == 0
    assert "instead of version 4" in output  # the newest
    assert "figures unknown" in output
    with http_server(folder) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        assert (primary_version(client), primaries(client)) == ("3", ["3"])
        assert [model.name[-1] for model in client.list_models()] == ["3", "4"]


def test_a_damaged_choice_stops_the_start_with_the_reason_until_it_is_replaced(folder: Path) -> None:
    (folder / "models" / "colours" / "primary.json").write_text("{")
    ended = run("serving", "serve", "--models", folder / "models", "--state", folder / "state", "--http", "off")
    assert ended.returncode == 1
    assert "primary.json cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr
    code, _, errors = command(folder, "rollback")
    assert code == 1
    assert "choose again with `pawserve promote colours VERSION`" in errors
    code, output, errors = command(folder, "promote", 3)
    assert (code, choice(folder)["primary"]) == (0, 3)
    assert "version 3 is now primary, instead of version 4" in output
    assert "primary.json was replaced, and its history is lost" in errors


def test_rollback_goes_back_one_promotion_at_a_time(folder: Path) -> None:
    write_bundle(folder / "models", version=5)
    for number in (3, 5):
        assert command(folder, "promote", number)[0] == 0
    assert command(folder, "rollback")[1] == "colours: version 3 is now primary, instead of version 5\n"
    assert command(folder, "rollback")[1] == "colours: version 5 is now primary, instead of version 3\n"
    code, _, errors = command(folder, "rollback")
    assert code == 1
    assert "no earlier version is known; choose with: pawserve promote colours VERSION" in errors
    assert command(folder, "promote", "newest")[0] == 0
    assert choice(folder)["primary"] is None
    assert len(choice(folder)["history"]) == 5  # type: ignore[arg-type]


def test_the_version_that_answers_already_can_be_promoted_so_that_a_newer_one_does_not_replace_it(
    folder: Path,
) -> None:
    with http_server(folder, "--poll-interval", "0.1") as server, Client(server.address, timeout_s=LIMIT_S) as client:
        assert primaries(client) == ["4"]
        code, output, _ = command(folder, "promote", 4, server=server.address)
        assert (code, "instead of" in output, choice(folder)["earlier"]) == (0, False, [])
        write_bundle(folder / "models", version=5)
        assert eventually(lambda: "5" in [model.name[-1] for model in client.list_models() if model.engine])
        assert primaries(client) == ["4"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((9,), 1, "holds no version 9; it has 3, 4"),
        (("x",), 2, "whole number"),
        (("newest", "--if-better"), 2, "--if-better needs a version"),
        ((4, "--if-better"), 1, NOBODY),
    ],
)
def test_what_cannot_be_promoted_is_explained(
    folder: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    ended, output, errors = command(folder, "promote", *arguments)
    assert (ended, output) == (code, "")
    assert message in errors
    assert not (folder / "models" / "colours" / "primary.json").exists()


def test_a_damaged_bundle_and_an_unknown_model_are_not_promoted(folder: Path) -> None:
    (folder / "models" / "colours" / "4" / "model.json").write_text("{}")
    code, _, errors = command(folder, "promote", 4)
    assert code == 1
    assert "colours/4 cannot be promoted" in errors
    ended = run("serving", "rollback", "cats", "--models", folder / "models")
    assert (ended.returncode, "holds no model cats; it has colours" in ended.stderr) == (1, True)
    ended = run("serving", "rollback", "../colours", "--models", folder / "models")
    assert (ended.returncode, "name is" in ended.stderr) == (2, True)


def test_a_version_that_is_gone_is_not_rolled_back_to(folder: Path) -> None:
    assert command(folder, "promote", 3)[0] == 0
    os.rename(folder / "models" / "colours" / "4", folder / "4")
    code, _, errors = command(folder, "rollback")
    assert (code, choice(folder)["primary"]) == (1, 3)
    assert "version 4, which was primary before, is no longer in" in errors


def test_commands_that_run_at_the_same_time_lose_no_change(folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda number: command(folder, "promote", 3 + number % 2), range(4)))
    assert [code for code, _, _ in ended] == [0] * 4
    written = sum("is now primary" in output for _, output, _ in ended)
    assert len(choice(folder)["history"]) == written >= 2  # type: ignore[arg-type]
