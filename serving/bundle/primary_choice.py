"""Choice of a model's primary version, which answers requests that name none: NAME/primary.json in the model folder.

`pawserve promote` and `pawserve rollback` write it, and every server that reads the folder follows it. Without the file
the newest version is primary.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from serving.bundle.manifest import BundleError
from serving.system.files import locked, write_atomically

FILE = "primary.json"
FORMAT = 1
MAX_BYTES = 256 * 1024
MAX_HISTORY = 100
MAX_EARLIER = 20
MAX_FIGURES = 500
_MAX_VERSION = 10**18 - 1

Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Change:
    """One change of the choice.

    Raises:
        ValueError: if a value is not allowed.
    """

    action: Action
    version: int | None
    """The primary version since then; None for the newest."""
    replaced: int | None
    """The primary version before; None if that was the newest."""
    time: str
    """Time of the change, ISO 8601 in UTC."""
    figures: str
    """Comparison of the two versions at that moment, in one line."""

    def __post_init__(self) -> None:
        if self.action not in ("promote", "rollback"):
            raise ValueError(f"action is {self.action!r:.40}; it must be promote or rollback")
        for field in ("version", "replaced"):
            _check_version(field, getattr(self, field))
        for field, most in (("time", 40), ("figures", MAX_FIGURES)):
            text = getattr(self, field)
            if not isinstance(text, str) or len(text) > most or not text.isprintable():
                raise ValueError(f"{field} is {text!r:.60}; it must be one line of at most {most} characters")


@dataclass(frozen=True)
class PrimaryChoice:
    """The choice for one model.

    Raises:
        ValueError: if a value is not allowed.
    """

    version: int | None = None
    """The primary version; None for the newest."""
    earlier: tuple[int, ...] = ()
    """The primary versions before, the latest last: `rollback` goes back to them. At most 20."""
    history: tuple[Change, ...] = ()
    """The changes, the latest last. At most 100."""

    def __post_init__(self) -> None:
        _check_version("primary", self.version)
        for number in self.earlier:
            _check_version("earlier", number, none=False)
        if len(self.earlier) > MAX_EARLIER or len(self.history) > MAX_HISTORY:
            raise ValueError(f"at most {MAX_EARLIER} earlier versions and {MAX_HISTORY} changes are kept")

    def promoted(self, version: int | None, replaced: int | None, time: str, figures: str) -> "PrimaryChoice":
        """The choice of another version; `replaced` is the present primary version, if it is known."""
        earlier = self.earlier if replaced is None else (*self.earlier, replaced)[-MAX_EARLIER:]
        return self._changed(version, earlier, Change("promote", version, replaced, time, _one_line(figures)))

    def rolled_back(self, time: str) -> "PrimaryChoice":
        """The choice before the latest promotion.

        Raises:
            ValueError: if there is none.
        """
        if not self.earlier:
            raise ValueError("no earlier version is known")
        *earlier, version = self.earlier
        return self._changed(version, tuple(earlier), Change("rollback", version, self.version, time, ""))

    def _changed(self, version: int | None, earlier: tuple[int, ...], change: Change) -> "PrimaryChoice":
        return PrimaryChoice(version, earlier, (*self.history, change)[-MAX_HISTORY:])


def read_choice(model: Path) -> PrimaryChoice:
    """Read the choice for a model.

    Args:
        model: its folder, models/NAME.

    Raises:
        BundleError: if the file is none that `write_choice` wrote; the message says why and what to do.
    """
    path = model / FILE
    try:
        text = _read_file(path)
        return PrimaryChoice() if text is None else _parse(text)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise BundleError(f"{path} cannot be used ({reason}): choose again with `pawserve promote {model.name} VERSION`")


def write_choice(model: Path, choice: PrimaryChoice) -> None:
    """Write the choice for a model in one step: it is on disk afterwards.

    Raises:
        OSError: if it cannot be written; the earlier one is then still there.
    """
    document = {
        "format": FORMAT,
        "primary": choice.version,
        "earlier": list(choice.earlier),
        "history": [asdict(change) for change in choice.history],
    }
    write_atomically(model / FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n", mode=0o644)


@contextmanager
def changing_choice(model: Path, *, replace_damaged: bool = False) -> Iterator[tuple[PrimaryChoice, str]]:
    """Give the block the choice for a model, and why its file is damaged; others that change it wait.

    Args:
        model: its folder, models/NAME.
        replace_damaged: begin with an empty choice if the file is damaged, instead of raising.

    Raises:
        BundleError: as `read_choice`.
        OSError: if the folder cannot be locked.
    """
    with locked(model):
        try:
            choice, damage = read_choice(model), ""
        except BundleError as error:
            if not replace_damaged:
                raise
            choice, damage = PrimaryChoice(), str(error)
        yield choice, damage


def _read_file(path: Path) -> str | None:
    """The text of a file; None if there is none. Neither waits for a pipe nor reads more than is allowed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content.decode()


def _parse(text: str) -> PrimaryChoice:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if document.get("format") != FORMAT or isinstance(document["format"], bool):
        raise ValueError(f"its format is {document.get('format')!r:.40}; this pawserve reads format {FORMAT}")
    for field in ("primary", "earlier", "history"):
        if field not in document:
            raise ValueError(f"it has no {field!r}")
    earlier, history = document["earlier"], document["history"]
    if not isinstance(earlier, list) or not isinstance(history, list):
        raise ValueError("earlier and history must be lists")
    return PrimaryChoice(document["primary"], tuple(earlier), tuple(map(_parse_change, history)))


def _parse_change(entry: Any) -> Change:
    fields = ("action", "version", "replaced", "time", "figures")
    if not isinstance(entry, dict) or set(entry) != set(fields):
        raise ValueError(f"each change in its history has {', '.join(fields)}")
    return Change(*(entry[field] for field in fields))


def _one_line(text: str) -> str:
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= MAX_FIGURES else line[: MAX_FIGURES - 1] + "…"


def _check_version(field: str, number: Any, *, none: bool = True) -> None:
    if number is None and none:
        return
    if type(number) is not int or not 1 <= number <= _MAX_VERSION:
        raise ValueError(f"{field} is {number!r:.40}; a version is a whole number of at most 18 digits")
