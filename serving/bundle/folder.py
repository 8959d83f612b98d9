"""A folder models/NAME/VERSION in; which versions it holds, and the bundles to serve, out."""

import re
from collections.abc import Sequence
from pathlib import Path

from serving.bundle.manifest import NAME_PATTERN, Bundle, BundleError, open_bundle

VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of each of a folder's files."""


def find_bundles(folder: Path, wanted: Sequence[str], keep: int = 1) -> list[Bundle]:
    """The bundles to serve.

    Args:
        folder: holds NAME/VERSION/model.json.
        wanted: "NAME" for its newest versions, or "NAME/VERSION"; empty for the newest versions of every name.
        keep: how many versions of a name are served, where none is named.

    Raises:
        BundleError: if one is missing, or cannot be used; or there is none at all.
    """
    try:
        keys = _find_keys(folder, wanted, keep)
    except OSError as error:
        raise BundleError(
            f"{error.filename or folder} cannot be read: {error.strerror}; whoever runs the server must be allowed to "
            "read the models"
        ) from error
    return [open_version(folder, name, version) for name, version in keys]


def _find_keys(folder: Path, wanted: Sequence[str], keep: int) -> list[tuple[str, int]]:
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder; name the one that holds NAME/VERSION/model.json with --models")
    names = wanted or list_names(folder)
    if not names:
        raise BundleError(f"{folder} holds no model; `python -m export bundle` writes one to NAME/VERSION")
    keys: dict[tuple[str, int], None] = {}
    for each in names:
        name, version = parse_wanted(each)
        versions = list_versions(folder / name)
        if not versions:
            raise BundleError(f"{folder} holds no version of {name}")
        keys.update(dict.fromkeys((name, number) for number in ([version] if version else versions[-keep:])))
    return list(keys)


def parse_wanted(wanted: str) -> tuple[str, int | None]:
    """Name and version of "NAME" (version None) or "NAME/VERSION".

    Raises:
        BundleError: for anything else.
    """
    name, slash, version = wanted.partition("/")
    if not NAME_PATTERN.fullmatch(name) or (slash and not VERSION_PATTERN.fullmatch(version)):
        raise BundleError(f"{wanted!r} is no model; write NAME or NAME/VERSION")
    return name, int(version) if version else None


def list_names(folder: Path) -> list[str]:
    """The names in a folder that have versions, in order."""
    return sorted(path.name for path in folder.iterdir() if NAME_PATTERN.fullmatch(path.name) and list_versions(path))


def list_versions(folder: Path) -> list[int]:
    """The versions of one name, in order; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name) and path.is_dir())


def open_version(folder: Path, name: str, version: int) -> Bundle:
    """One version's bundle.

    Raises:
        BundleError: if it cannot be read, or is of another name or version than its folders.
    """
    bundle = open_bundle(folder / name / str(version))
    manifest = bundle.manifest
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(f"{bundle.folder} holds {manifest.resource}; the folders must be named as the manifest says")
    return bundle


def fingerprint(folder: Path) -> Fingerprint:
    """What changes when a file in a folder does; empty if there is no such folder."""
    try:
        files = [(path.name, path.stat()) for path in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_size, status.st_mtime_ns) for name, status in files))
