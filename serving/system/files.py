"""Files and folders that are written whole: under a temporary name in the same folder, synced, then renamed."""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(
    path: Path,
    content: bytes | str,
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    exclusive: bool = False,
) -> None:
    """Write a file in one step: readers see the earlier contents or all of the new ones, also after a crash.

    Args:
        path: the file.
        content: its bytes, or its text, which is encoded as UTF-8.
        mode: permission bits of the file; None for those that the umask leaves of 0o666.
        owner: numbers of the user and the group that it belongs to; None for this process's.
        exclusive: fail if the file exists, also if another process creates it meanwhile.

    Raises:
        FileExistsError: if `exclusive` is set and the file exists.
        OSError: if it cannot be written, with the path as `filename`. The file is then as before.
    """
    with replacing(path, mode=mode, owner=owner, exclusive=exclusive) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(
    path: Path, *, mode: int | None = None, owner: tuple[int, int] | None = None, exclusive: bool = False
) -> Iterator[Path]:
    """Give the block a temporary path to write to; when the block ends, the file takes the place of `path`.

    If the block raises, `path` stays as it was and the temporary file is removed. Arguments and errors are those of
    `write_atomically`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600))
        if owner is not None:
            os.chown(temporary, *owner)
        if mode is not None:
            temporary.chmod(mode)
        yield temporary
        sync(temporary)
        if exclusive:
            os.link(temporary, path)  # unlike a rename, a link never replaces a file
        else:
            os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a write to a full disk reports no name
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """Create a temporary folder in `parent`; it is removed when the block ends.

    As its last act the block calls `sync_folder` and renames the folder to where it belongs.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def filling(out: Path) -> Iterator[Path]:
    """Give the block a temporary folder to fill; when the block ends, it is synced and takes the place of `out`.

    If `out` cannot be replaced, the temporary folder lies inside it, and what it holds is moved up. If the block
    raises, nothing is left.

    Args:
        out: the folder, or a link to it.

    Raises:
        ValueError: if `out` is a file, or a folder that is not empty; nothing is overwritten.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or contents(out)):
        raise ValueError(f"{out} is there already: give a new or an empty folder")
    inside = not is_replaceable(out)
    try:
        with new_folder(out if inside else out.parent, out.name) as folder:
            yield folder
            sync_folder(folder)
            if inside:
                move_contents(folder, out)
            else:
                os.rename(folder, out)
    except OSError as error:
        if f"/.{out.name}." in str(error.filename):  # of the temporary folder
            error.filename, error.filename2 = str(out), None
        raise


def is_replaceable(folder: Path) -> bool:
    """Whether another folder can be renamed to this one, which may be empty or absent.

    It cannot where this one is a mount point, such as a volume of a container, or where its parent folder may not be
    written.
    """
    if not folder.is_dir():
        return True
    mounts = Path("/proc/self/mountinfo")
    # os.path.ismount does not know a folder mounted from the same file system
    points = [line.split()[4] for line in mounts.read_text().splitlines()] if mounts.exists() else []
    here = folder.resolve()
    mounted = os.path.ismount(here) or str(here) in (_unescaped(point) for point in points)
    return not mounted and os.access(here.parent, os.W_OK)


def _unescaped(point: str) -> str:
    """A path of mountinfo, where white space and backslashes are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point)


def contents(folder: Path) -> list[Path]:
    """What a folder holds, apart from the `lost+found` of a new disk."""
    return [path for path in folder.iterdir() if path.name != "lost+found"]


def move_contents(source: Path, target: Path, *, leave: Collection[str] = ()) -> None:
    """Move what a folder holds into another on the same file system, what was written last as the last.

    Args:
        leave: names that are not moved.
    """
    moved = [path for path in contents(source) if path.name not in leave]
    for path in sorted(moved, key=lambda path: path.stat().st_mtime_ns):
        place = target / path.name
        if place.is_dir():  # left by an attempt that was interrupted
            shutil.rmtree(place)
        os.rename(path, place)
    sync(target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other processes that lock the same folder until the block ends.

    Raises:
        OSError: if the folder cannot be opened, or its file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the descriptor closes
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring all files of a folder, and their names, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Bring a file's contents, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
