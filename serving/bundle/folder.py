"""The model folder: which versions it holds in NAME/VERSION/model.json, and which of them to serve."""

from collections.abc import Sequence
from pathlib import Path

from serving.bundle.manifest import Bundle, BundleError, open_bundle
from serving.bundle.model_version import NAME_PATTERN, VERSION_PATTERN, ModelVersion, parse_short_name

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and modification time (ns) of each file in a folder."""


def find_bundles(folder: Path, wanted: Sequence[str], keep: int = 1) -> list[Bundle]:
    """Open the bundles to serve.

    Args:
        folder: holds NAME/VERSION/model.json.
        wanted: NAME for its newest versions, or NAME/VERSION; empty for the newest versions of every name.
        keep: how many versions of a name are served where no version is given.

    Raises:
        BundleError: if a version is missing or cannot be used, if there is none at all, or for a malformed name.
    """
    try:
        versions = _find_versions(folder, wanted, keep)
    except OSError as error:
        raise BundleError(
            f"{error.filename or folder} cannot be read: {error.strerror}; let the server's user read the models"
        ) from error
    return [open_version(folder, version) for version in versions]


def _find_versions(folder: Path, wanted: Sequence[str], keep: int) -> list[ModelVersion]:
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; give --models the folder that holds NAME/VERSION/model.json")
    names = wanted or list_names(folder)
    if not names:
        raise BundleError(f"{folder} holds no model; `python -m export bundle` writes one to NAME/VERSION")
    found: dict[ModelVersion, None] = {}
    for each in names:
        try:
            name, number = parse_short_name(each)
        except ValueError as error:
            raise BundleError(str(error)) from error
        numbers = list_versions(folder / name)
        if not numbers:
            raise BundleError(f"{folder} holds no version of {name}")
        chosen = [number] if number else numbers[-keep:]
        found.update(dict.fromkeys(ModelVersion(name, each) for each in chosen))
    return list(found)


def list_names(folder: Path) -> list[str]:
    """List the names in a folder that have versions, in order."""
    return sorted(path.name for path in folder.iterdir() if NAME_PATTERN.fullmatch(path.name) and list_versions(path))


def list_versions(folder: Path) -> list[int]:
    """List the version numbers of one name, in order; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name) and path.is_dir())


def open_version(folder: Path, version: ModelVersion) -> Bundle:
    """Open the bundle of one version.

    Raises:
        BundleError: if it cannot be read, or its manifest has another name or version than its folders.
    """
    bundle = open_bundle(folder / str(version))
    if bundle.manifest.model_version != version:
        raise BundleError(
            f"{bundle.folder} holds {bundle.manifest.resource}; name the folders as the manifest says: NAME/VERSION"
        )
    return bundle


def fingerprint(folder: Path) -> Fingerprint:
    """Describe the files of a folder so that a change of any of them shows; empty if there is no such folder."""
    try:
        files = [(path.name, path.stat()) for path in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_size, status.st_mtime_ns) for name, status in files))
