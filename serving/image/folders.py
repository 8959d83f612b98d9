"""Finds the files below a folder: the one rule of training, `predict` and shards.

- Names that begin with a dot, and what NAS and desktop systems leave behind (`SYSTEM_NAMES`), are ignored.
- Links to files and folders are followed. A folder is read once; a link to a folder that contains it is left out.
- Folders that pawserve wrote (a run, a bundle, shards) are left out.
- Dangling links, pipes, and folders and files without permission are left out.

Everything that is left out is listed with the reason; names that are ignored are not. Needs only the standard library,
so that commands start quickly.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM_NAMES = {
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # Synology, QNAP
    *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),  # Windows
    *("__macosx", "icon\r"),  # macOS; ._NAME, .DS_Store and .thumbnails begin with a dot
    "lost+found",
}
"""Lower case."""
MAX_LISTED = 10
"""Files in a message."""
OUTPUT_DEPTH = 3
"""A folder of models holds NAME/VERSION/model.json."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is left out, and why."""

    path: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"path": printable(str(self.path)), "reason": self.reason}


@dataclass
class Listing:
    """What a folder holds, each sorted by name."""

    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def list_folder(folder: Path, targets: Collection[Path] = ()) -> Listing:
    """One folder's content, by the rule of this module.

    Args:
        targets: folders that the command writes, which are left out; absolute paths, which need not exist.
    """
    listing = Listing()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return Listing(skipped=[Skipped(folder, f"the folder cannot be read: {error.strerror}")])
    for entry in entries:
        if is_ignored(entry.name):
            continue
        path = folder / entry.name
        try:
            if entry.is_dir():
                reason = _why_folder_is_skipped(path, targets, linked=entry.is_symlink())
                if not reason:
                    listing.folders.append(path)
            elif entry.is_file():
                reason = ""
                listing.files.append(path)
            elif entry.is_symlink() and not path.exists():
                reason = f"a link to {os.readlink(path)}, which does not exist"
            else:
                reason = "neither a file nor a folder"
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        if reason:
            listing.skipped.append(Skipped(path, reason))
    return listing


def find_files(folder: Path, others: Collection[Path] = ()) -> Listing:
    """All files below a folder, sorted by path; `folders` stays empty.

    Links to folders are followed after all other folders, so that a folder is read under its own name if it has one.

    Args:
        others: folders that are read too: links into them are left out.
    """
    found = Listing()
    seen: set[Path] = set()
    elsewhere = {other.resolve() for other in others} - {folder.resolve()}
    waiting, linked = [folder], list[Path]()
    while waiting or linked:
        inside = waiting.pop() if waiting else linked.pop(0)
        real = inside.resolve()
        if real in seen or (inside.is_symlink() and inside != folder and elsewhere & {real, *real.parents}):
            found.skipped.append(Skipped(inside, "a folder that is read already, under another name"))
            continue
        seen.add(real)
        listing = list_folder(inside)
        found.files += listing.files
        found.skipped += listing.skipped
        for each in listing.folders:
            (linked if each.is_symlink() else waiting).append(each)
    found.files.sort()
    found.skipped.sort(key=lambda each: each.path)
    return found


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the system and not to the user."""
    return name[0] == "." or name.lower() in SYSTEM_NAMES


def own_output(folder: Path, targets: Collection[Path] = (), depth: int = OUTPUT_DEPTH) -> str:
    """What pawserve wrote into a folder, or into all of its folders; empty if it holds anything else."""
    if folder in targets:
        return "the folder that this command writes"
    if (folder / "run.json").is_file() and (folder / "recipe.yaml").is_file():
        return "a run that fit wrote"
    if (folder / "model.json").is_file() and any(folder.glob("*.onnx")):
        return "a bundle that export wrote"
    if (folder / "shards.json").is_file():
        return "shards"
    inside = ""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_ignored(entry.name):
                if not depth or not entry.is_dir(follow_symlinks=False):
                    return ""
                inside = own_output(folder / entry.name, targets, depth - 1)
                if not inside:
                    return ""
    if not inside and any(folder in target.parents for target in targets):
        return "the folder that this command writes"
    return inside


def describe_skipped(skipped: Sequence[Skipped]) -> list[str]:
    """Lines for a message: how many files and folders are left out, and the first of them with the reasons."""
    if not skipped:
        return []
    lines = [f"left out: {len(skipped):,} {'file or folder' if len(skipped) == 1 else 'files or folders'}"]
    first = sorted(skipped, key=lambda each: each.path)[:MAX_LISTED]
    lines += [f"  {printable(str(each.path))}: {each.reason}" for each in first]
    return lines + [f"  and {len(skipped) - MAX_LISTED:,} more"] * (len(skipped) > MAX_LISTED)


def printable(name: str) -> str:
    """A file name, with bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _why_folder_is_skipped(path: Path, targets: Collection[Path], *, linked: bool) -> str:
    if linked and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path)):
        return "a link to a folder that contains it"
    try:
        output = own_output(path, targets)
    except OSError:
        return ""  # reported when the folder is read
    return f"holds {output}" if output and not output.startswith("the folder") else output
