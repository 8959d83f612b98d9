"""Changes of the primary version of a model while the server runs."""

import asyncio
import logging
import os
from collections.abc import Collection
from pathlib import Path

from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion, resource_name
from serving.bundle.primary_choice import FILE, PrimaryChoice, read_choice
from serving.models.repository import ModelRepository, State
from serving.models.version_loads import VersionLoads
from serving.system.reloading import state_of

logger = logging.getLogger(__name__)


class Primaries:
    """Follows the choices in the model folder. For the event loop.

    A choice that cannot be followed is reported, and the primary version stays: a file that is damaged, a version that
    is not in the folder or fails to load.

    Args:
        repository: where versions are served.
        folder: the model folder.
        loads: loads versions.
    """

    def __init__(self, repository: ModelRepository, folder: Path, loads: VersionLoads) -> None:
        self._repository = repository
        self._folder = folder
        self._loads = loads
        self._choices: dict[str, tuple[object, PrimaryChoice]] = {}
        self._damaged: set[str] = set()
        self._missing: dict[str, ModelVersion] = {}

    async def follow(self, name: str, versions: Collection[int], *, load: bool, retry: bool = False) -> None:
        """Make the promoted version of a name primary, if it is served.

        Args:
            name: the model.
            versions: its versions in the folder.
            load: load the promoted version if that is due.
            retry: try it again if it failed to load.
        """
        if not versions:
            return  # a file system that fails changes nothing
        choice = await asyncio.to_thread(self._read, name)
        key = ModelVersion(name, choice.version) if choice.version else None
        if (missing := self._missing.get(name)) and (missing != key or missing.version in versions):
            del self._missing[name]
            self._repository.forget(missing, State.FAILED)
        if key is None or (key.version not in versions and self._repository.primary(name) == key.version):
            self._choose(name, None, choice)
        if key is None:
            return
        if key.version not in versions:
            self._report_missing(key, versions)
        elif (not load or await self._loads.update(key, retry=retry)) and self._loads.served(key):
            self._choose(name, key.version, choice)

    def _choose(self, name: str, version: int | None, choice: PrimaryChoice) -> None:
        if self._repository.primary(name) == version:
            return
        self._repository.set_primary(name, version)
        resource, figures = resource_name(name), choice.history[-1].figures if choice.history else ""
        logger.warning(
            "the primary version of %s is now %s, as %s says%s",
            resource,
            version or "the newest",
            self._folder / name / FILE,
            f" ({figures})" if figures else "",
        )

    def _report_missing(self, key: ModelVersion, versions: Collection[int]) -> None:
        if key.name in self._missing:
            return
        self._missing[key.name] = key
        reason = f"it was promoted, but {self._folder / key.name} holds only {', '.join(map(str, sorted(versions)))}"
        logger.error("%s cannot be primary: %s", key.resource, reason)
        if not self._loads.served(key):
            self._repository.mark(key, State.FAILED, reason)

    def _read(self, name: str) -> PrimaryChoice:
        """The choice in the folder; the last one that was valid if the file is not."""
        file = self._folder / name / FILE
        seen = state_of(file) or os.path.lexists(file)  # also where a link leads nowhere
        last_seen, choice = self._choices.get(name, (None, PrimaryChoice()))
        if name in self._choices and seen == last_seen:
            return choice
        try:
            choice = read_choice(self._folder / name)
        except BundleError as error:
            if name not in self._choices and (version := self._repository.primary(name)):
                choice = PrimaryChoice(version)  # it was valid when the server started
            if name not in self._damaged:  # a file that is being written changes again and again
                logger.error("the primary version of %s stays: %s", resource_name(name), error)
            self._damaged.add(name)
        else:
            self._damaged.discard(name)
        self._choices[name] = (seen, choice)
        return choice


def apply_choices(repository: ModelRepository, folder: Path) -> None:
    """Make the promoted versions primary that a repository serves when the server starts.

    Raises:
        BundleError: if a choice cannot be read.
    """
    for name in repository.names:
        if version := read_choice(folder / name).version:
            if any(model.manifest.model_version == ModelVersion(name, version) for model in repository.models):
                repository.set_primary(name, version)
            else:
                logger.error("version %d of %s was promoted, but is not served", version, name)
