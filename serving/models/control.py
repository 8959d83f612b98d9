"""What clients see and change of the models: those of this process, or of all processes of one server."""

from collections.abc import Callable, Collection

from serving.bundle.model_version import ModelVersion
from serving.models.repository import ModelRepository, State, VersionStatus
from serving.models.watcher import ModelWatcher

NamesListener = Callable[[Collection[str]], None]
"""Is called with the resource names that are served."""


class ModelControl:
    """The models of this process. `serving.processes` has the one for several processes.

    Args:
        repository: the versions that are served.
        watcher: loads and unloads models.
    """

    def __init__(self, repository: ModelRepository, watcher: ModelWatcher) -> None:
        self.repository = repository
        self.watcher = watcher

    async def statuses(self) -> list[VersionStatus]:
        """All known versions, ordered by name and version."""
        return self.repository.statuses

    async def is_ready(self, version: ModelVersion) -> bool:
        """Whether a version is served."""
        return any(each.version == version and each.state is State.READY for each in await self.statuses())

    async def load(self, name: str) -> None:
        """Serve "NAME" in its newest version, or "NAME/VERSION".

        Raises:
            ModelNotFound, BundleError, ValueError: as `ModelWatcher.load`.
        """
        await self.watcher.load(name)

    async def unload(self, name: str) -> None:
        """Stop serving all versions of "NAME".

        Raises:
            ModelNotFound: if it is not served.
        """
        await self.watcher.unload(name)

    def publish(self, names: Collection[str], listener: NamesListener) -> None:
        """Pass on the resource names that this process serves now; the listener gets those that are to be reported."""
        listener(names)
