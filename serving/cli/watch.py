"""The statistics of a server, shown whenever they change."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serving.cli.signals import raise_when_reader_ends
from serving.cli.tables import statistics_to_dict, statistics_view
from serving.client import Client, ClientError
from serving.client.retries import is_retryable
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.output import print_json

RETRY_S = 1.0


def watch_statistics(client: Client, model: str, interval_s: float, *, as_json: bool) -> None:
    """Show the statistics whenever they change, until KeyboardInterrupt. Reconnect to a server that stops.

    A terminal is redrawn; elsewhere each update is printed below the last one, as JSON on one line.

    Raises:
        ClientError: if the server rejects the call, or does not answer at first.
        BrokenPipeError: when the reader of standard output has ended.
    """
    raise_when_reader_ends(sys.stdout.fileno())
    console = Console()
    if as_json:
        _follow(client, model, interval_s, _JsonLines())
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:  # cuts off what does not fit the screen
            _follow(client, model, interval_s, _Screen(live))
    else:
        _follow(client, model, interval_s, _Pages(console))


def _follow(client: Client, model: str, interval_s: float, view: "_Screen | _Pages | _JsonLines") -> None:
    answered, connected = False, True
    while True:
        reason = "the server is stopping"
        try:
            for models in client.watch_statistics(model, min_interval_s=interval_s):
                answered = connected = True
                view.show(models)
        except ClientError as error:
            if not answered or not is_retryable(error):
                raise
            reason = error.message
        if connected:
            view.interrupted(f"{reason}; trying again until it answers")
            connected = False
        time.sleep(RETRY_S)


class _Screen:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._models: Sequence[pb.ModelStatistics] = ()
        self._at = ""

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._models, self._at = models, time.strftime("%H:%M:%S")
        self._draw(Text(f"{self._at}; press Ctrl-C to end", style="dim"))

    def interrupted(self, reason: str) -> None:
        self._draw(Text(f"as of {self._at}: {reason}", style="yellow"))

    def _draw(self, line: Text) -> None:
        self._live.update(Group(line, statistics_view(self._models)), refresh=True)


class _Lines:
    def interrupted(self, reason: str) -> None:
        print(f"pawserve: {reason}", file=sys.stderr, flush=True)


class _Pages(_Lines):
    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        self._console.print(Text(time.strftime("%H:%M:%S")), statistics_view(models))


class _JsonLines(_Lines):
    def show(self, models: Sequence[pb.ModelStatistics]) -> None:
        print_json({"models": [statistics_to_dict(model) for model in models]})
