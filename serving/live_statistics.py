"""A server to watch in; its statistics in the terminal, kept up to date until Ctrl-C, out."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Protocol

import grpc
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.reader import raise_once_nobody_reads
from serving.tables import statistics_to_dict, statistics_view

RETRY_S = 1.0


class _View(Protocol):
    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        """Statistics that are up to date."""

    def wait(self, reason: str) -> None:
        """They are no longer, and why."""


def watch_statistics(client: Client, model: str, interval_s: float, console: Console, *, as_json: bool) -> None:
    """Show statistics whenever they change, until KeyboardInterrupt. A server that goes away is waited for.

    On a terminal the picture is redrawn in its place; elsewhere each is printed below the one before, and as JSON each
    is a line.

    Raises:
        ClientError: if the server does not answer from the first, or refuses.
        BrokenPipeError: once nobody reads standard output any more.
    """
    raise_once_nobody_reads(sys.stdout.fileno())
    if as_json:
        _follow(client, model, interval_s, _Json())
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:  # what does not fit is left out at the bottom
            _follow(client, model, interval_s, _Terminal(live))
    else:
        _follow(client, model, interval_s, _Pages(console))


def _follow(client: Client, model: str, interval_s: float, view: _View) -> None:
    begun, waiting = False, False
    while True:
        reason = "the server is stopping"
        try:
            for models in client.watch_statistics(model, min_interval_s=interval_s):
                begun, waiting = True, False
                view.show(models)
        except ClientError as error:
            if not begun or error.code != grpc.StatusCode.UNAVAILABLE:
                raise
            reason = error.message
        if not waiting:
            view.wait(f"{reason}; trying again until it answers")
            waiting = True
        time.sleep(RETRY_S)


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._models: Sequence[pb.ModelStatistics] = ()
        self._at = ""

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._models, self._at = models, time.strftime("%H:%M:%S")
        self._draw(Text(f"{self._at}; Ctrl-C ends", style="dim"))

    def wait(self, reason: str) -> None:
        self._draw(Text(f"as of {self._at}: {reason}", style="yellow"))

    def _draw(self, line: Text) -> None:
        self._live.update(Group(line, statistics_view(self._models)), refresh=True)


class _Pages:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._console.print(Text(time.strftime("%H:%M:%S")), statistics_view(models))

    def wait(self, reason: str) -> None:
        print(f"pawserve: {reason}", file=sys.stderr, flush=True)


class _Json:
    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        print(json.dumps({"models": [statistics_to_dict(model) for model in models]}, ensure_ascii=False), flush=True)

    def wait(self, reason: str) -> None:
        print(f"pawserve: {reason}", file=sys.stderr, flush=True)
