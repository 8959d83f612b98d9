"""The model folder: which versions it holds in NAME/VERSION/model.json, and which of them to serve."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from serving.bundle.manifest import MANIFEST, Bundle, BundleError, open_bundle
from serving.bundle.model_version import NAME_PATTERN, VERSION_PATTERN, ModelVersion, parse_short_name
from serving.bundle.primary_choice import read_choice
from serving.bundle.shadow_version import ShadowVersion

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and time of the last change (ns), of contents or permissions, of each file in a folder."""


def find_bundles(
    folder: Path, wanted: Sequence[str], keep: int = 1, shadows: Sequence[ShadowVersion] = ()
) -> list[Bundle]:
    """Open the bundles to serve.

    Args:
        folder: holds NAME/VERSION/model.json.
        wanted: NAME for its newest versions and the promoted one, or NAME/VERSION; empty for those of every name.
        keep: how many versions of a name are served where no version is given.
        shadows: versions that are not among the newest of their names, and are not opened.

    Raises:
        BundleError: if a version is missing or cannot be used, if there is none at all, if the folder has no version of
            a shadow version's name, if the choice of the primary version cannot be read, or for a malformed name.
    """
    try:
        versions = _find_versions(folder, wanted, keep, shadows)
    except OSError as error:
        raise BundleError(
            f"{error.filename or folder} cannot be read: {error.strerror}; let the server's user read the models"
        ) from error
    return [open_version(folder, version) for version in versions]


def _find_versions(
    folder: Path, wanted: Sequence[str], keep: int, shadows: Sequence[ShadowVersion]
) -> list[ModelVersion]:
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; give --models the folder that holds NAME/VERSION/model.json")
    names = wanted or [name for name in list_names(folder) if list_versions(folder / name)]
    if not names:
        if (folder / MANIFEST).exists():
            raise BundleError(f"{folder} is one bundle; give --models {os.path.normpath(folder / '../..')}")
        if any((folder / str(number) / MANIFEST).exists() for number in list_versions(folder)):
            raise BundleError(
                f"{folder} holds the versions of one model; give --models {os.path.normpath(folder / '..')}"
            )
        found_instead = "".join(f"; {each}" for each in describe_unserved(folder))
        raise BundleError(
            f"{folder} holds no model; `python -m export bundle` writes one to NAME/VERSION{found_instead}"
        )
    shadow_of = {shadow.version.name: shadow.version for shadow in shadows}
    found: dict[ModelVersion, None] = {}
    for each in names:
        try:
            name, number = parse_short_name(each)
        except ValueError as error:
            raise BundleError(str(error)) from error
        numbers = list_versions(folder / name)
        if not numbers:
            found_instead = "".join(f"; {each}" for each in describe_unserved(folder, [name]))
            raise BundleError(f"{folder} holds no version of {name}{found_instead}")
        promoted = read_choice(folder / name).version
        unnamed = without_shadow(numbers, shadow_of.get(name))[-keep:]
        if promoted in numbers and promoted not in unnamed:
            unnamed = [promoted, *unnamed]
        if not unnamed:
            raise BundleError(
                f"{folder} holds no version of {name} but {shadow_of[name]}, a shadow version, which answers no "
                "request by itself: copy another version, or leave --shadow out"
            )
        chosen = [number] if number else unnamed
        found.update(dict.fromkeys(ModelVersion(name, each) for each in chosen))
    known = {version.name for version in found}
    for name, version in shadow_of.items():
        if name not in known:
            raise BundleError(
                f"--shadow {version}: {folder} holds no version of {name}, only of {', '.join(sorted(known))}; give "
                "one of these names"
            )
    return list(found)


def without_shadow(numbers: Sequence[int], shadow: ModelVersion | None) -> list[int]:
    """The version numbers of a name that may answer requests: all but that of its shadow version."""
    return [number for number in numbers if shadow is None or number != shadow.version]


def open_newest(folder: Path) -> Bundle:
    """Open the bundle in a folder models/NAME/VERSION, or the primary version in a folder models/NAME.

    The primary version is the promoted one if there is one and it is there, and the newest otherwise.

    Raises:
        BundleError: if there is none, or it is invalid.
    """
    if not (folder / MANIFEST).exists() and (versions := list_versions(folder)):
        promoted = read_choice(folder).version
        folder = folder / str(promoted if promoted in versions else versions[-1])
    return open_bundle(folder)


def list_names(folder: Path) -> list[str]:
    """List the model names in a folder, with and without versions, in order."""
    return sorted(path.name for path in folder.iterdir() if NAME_PATTERN.fullmatch(path.name) and path.is_dir())


def list_versions(folder: Path) -> list[int]:
    """List the version numbers of one name, in order; empty if there is no such folder.

    A link that leads nowhere is a version too: it fails to load, with the reason.
    """
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name)]
    return sorted(int(path.name) for path in paths if path.is_dir() or _is_dangling(path))


def describe_unserved(folder: Path, names: Collection[str] | None = None) -> list[str]:
    """Say which entries of a model folder are never served, and why. Files and hidden entries are not listed.

    Args:
        folder: holds NAME/VERSION/model.json.
        names: look at the versions of these names only; None for everything.
    """
    found: list[str] = []
    for path in _visible(folder):
        if names is None or path.name in names:
            with suppress(OSError):  # is reported when its versions are listed
                found += _unserved(path)
    return sorted(found)


def _unserved(path: Path) -> Iterator[str]:
    if _is_dangling(path):
        yield f"{path} is a link to {path.readlink()}, which is not there"
    elif not path.is_dir():
        return
    elif not NAME_PATTERN.fullmatch(path.name):
        yield f"{path} is not the name of a model: a-z, 0-9, '.', '_' and '-' are allowed"
    else:
        for each in _visible(path):
            is_folder = each.is_dir() or _is_dangling(each)
            if not VERSION_PATTERN.fullmatch(each.name) and is_folder:
                yield f"{each} is not a version: versions are 1, 2, 3, ..., without leading zeros"
            elif VERSION_PATTERN.fullmatch(each.name) and not is_folder:
                yield f"{each} is not a folder"
        if not list_versions(path):
            yield f"{path} holds no version: a bundle belongs in {path}/1"


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _is_dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def open_version(folder: Path, version: ModelVersion) -> Bundle:
    """Open the bundle of one version.

    Raises:
        BundleError: if it cannot be read, or its manifest has another name or version than its folders.
    """
    path = folder / str(version)
    if _is_dangling(path):
        raise BundleError(f"{path} is a link to {path.readlink()}, which is not there")
    bundle = open_bundle(path)
    if bundle.manifest.model_version != version:
        raise BundleError(
            f"{bundle.folder} holds {bundle.manifest.resource}; name the folders as the manifest says: NAME/VERSION"
        )
    return bundle


def fingerprint(folder: Path) -> Fingerprint:
    """Describe the files of a folder so that a change of any of them shows; empty if there is no such folder.

    A folder that cannot be read, and a link that leads nowhere, are described too.
    """
    try:
        return tuple(sorted(_describe(path) for path in folder.iterdir()))
    except OSError as error:
        return ((str(error), 0, 0),) if os.path.lexists(folder) else ()


def _describe(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere, such as an editor's lock
        status = path.lstat()
    return path.name, status.st_size, status.st_ctime_ns
