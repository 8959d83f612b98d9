"""The model versions that are served, found by name, and closed after their last use.

A call finds a version with `find`, and computes with it inside `with repository.use(model):`, without waiting between
the two. The block counts as one user of the version. A version that was replaced or unloaded gets no new users, and is
closed when its last user leaves.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from threading import Condition, Thread, current_thread

from serving.bundle.model_version import ModelVersion, resource_name
from serving.bundle.shadow_version import ShadowVersion
from serving.models.loader import ServedModel
from serving.system.memory import return_memory


class ModelNotFound(LookupError):
    """A well-formed name of a model or version that is not served; the message lists those that are."""


class State(Enum):
    """State of a version; the values are those of the API's ModelState."""

    LOADING = 1
    READY = 2
    DRAINING = 3
    FAILED = 4


@dataclass(frozen=True)
class VersionStatus:
    """State of a version, served or not."""

    version: ModelVersion
    state: State
    reason: str = ""
    model: ServedModel | None = None
    """Set if the version is ready."""


@dataclass(frozen=True)
class _View:
    """All versions at one moment."""

    statuses: Mapping[ModelVersion, VersionStatus]
    primaries: Mapping[str, ServedModel]
    served: frozenset[ServedModel]


class ModelRepository:
    """The versions that are served, and the states of the others. For any number of threads.

    Args:
        shadows: versions that are never primary unless they are promoted, at most one of each name.
    """

    def __init__(self, shadows: Iterable[ShadowVersion] = ()) -> None:
        self.shadows: Mapping[str, ShadowVersion] = {shadow.version.name: shadow for shadow in shadows}
        """Model name -> its shadow version, whether it is served or not."""
        # Each change replaces the view by one assignment, so readers need no lock and see a change entirely or not.
        self._view = _View({}, {}, frozenset())
        self._primaries: dict[str, int] = {}
        self._users: Counter[ServedModel] = Counter()
        self._changed = Condition()  # guards changes of the view and `_users`; notified when a version has no user left
        self._retiring: set[Thread] = set()
        self._closing = False
        self.loaded: Counter[str] = Counter()
        """Model name -> versions that were loaded."""
        self.failed: Counter[str] = Counter()
        """Model name -> versions that failed to load."""
        self.on_change: list[Callable[[], None]] = []
        """Called after each change, in the thread that made it."""

    def add(self, model: ServedModel, retire: Iterable[ModelVersion] = ()) -> None:
        """Serve a version, and retire others in the same step; an earlier model of the same version is retired too."""
        key = model.manifest.model_version
        self.loaded[key.name] += 1
        self._change({key: VersionStatus(key, State.READY, model=model)}, retire, f"replaced by {key.resource}")

    def retire(self, versions: Iterable[ModelVersion], reason: str) -> None:
        """Stop serving versions; calls that use them are finished first."""
        self._change({}, versions, reason)

    def mark(self, version: ModelVersion, state: State, reason: str) -> None:
        """Set the state of a version; if it is served, only the reason is set."""
        old = self._view.statuses.get(version)
        new = replace(old, reason=reason) if old and old.model else VersionStatus(version, state, reason)
        if new != old:
            if state is State.FAILED:
                self.failed[version.name] += 1
            self._change({version: new})

    def primary(self, name: str) -> int | None:
        """The version that is primary while it is served; None for the newest that is no shadow."""
        return self._primaries.get(name)

    def set_primary(self, name: str, version: int | None) -> None:
        """Make a version primary while it is served; None for the newest that is no shadow."""
        with self._changed:
            if self._primaries.get(name) == version:
                return
            if version is None:
                self._primaries.pop(name, None)
            else:
                self._primaries[name] = version
        self._change({})

    def forget(self, version: ModelVersion, state: State) -> None:
        """Remove the status of a version, if it is still in this state."""
        with self._changed:  # which may be entered again
            status = self._view.statuses.get(version)
            if status is not None and status.state is state:
                self._change({version: None})

    @property
    def models(self) -> list[ServedModel]:
        """All versions that are served, ordered by name and version."""
        return [status.model for status in self._view.statuses.values() if status.model]

    @property
    def names(self) -> list[str]:
        """The names that have a primary version, in order."""
        return list(self._view.primaries)

    def is_shadow(self, version: ModelVersion) -> bool:
        """Whether this is the shadow version of its name."""
        shadow = self.shadows.get(version.name)
        return shadow is not None and shadow.version == version

    def shadow_share(self, version: ModelVersion) -> float:
        """The share of requests that a version classifies too, as a shadow; 0 if it is no shadow version."""
        shadow = self.shadows.get(version.name)
        return shadow.share if shadow and self.is_shadow(version) and not self.is_primary(version) else 0.0

    def shadow_of(self, model: ServedModel) -> tuple[ServedModel, float] | None:
        """The shadow version of a primary version, and its share of the requests.

        None if there is none, it is not served now, or `model` is not primary.
        """
        key = model.manifest.model_version
        shadow = self.shadows.get(key.name)
        view = self._view
        if shadow is None or shadow.version == key or view.primaries.get(key.name) is not model:
            return None
        status = view.statuses.get(shadow.version)
        return (status.model, shadow.share) if status and status.model else None

    def is_primary(self, version: ModelVersion) -> bool:
        """Whether this version answers requests that name no version."""
        model = self._view.primaries.get(version.name)
        return model is not None and model.manifest.model_version == version

    @property
    def statuses(self) -> list[VersionStatus]:
        """All known versions, ordered by name and version."""
        return list(self._view.statuses.values())

    def find(self, name: str, version: int | None) -> ServedModel:
        """Find a version, by default the primary one; to compute with it, enter `use`.

        Raises:
            ModelNotFound: if it is not served.
        """
        view = self._view
        if version is None:
            model = view.primaries.get(name)
        else:
            status = view.statuses.get(ModelVersion(name, version))
            model = status.model if status else None
        if model is None:
            served = ", ".join(map(self._describe, self.models)) or "nothing now"
            raise ModelNotFound(f"{resource_name(name, version)} is not served here; there is {served}")
        return model

    def use(self, model: ServedModel) -> AbstractContextManager[ServedModel]:
        """Keep a version open within a block.

        Raises:
            ModelNotFound: at the beginning of the block, if it has been retired.
        """
        return _Use(self, model)

    def _describe(self, model: ServedModel) -> str:
        manifest = model.manifest
        return manifest.resource + " (a shadow)" * bool(self.shadow_share(manifest.model_version))

    def _enter(self, model: ServedModel) -> None:
        with self._changed:  # a version that is served is not retired yet, so it is counted before it could close
            if model not in self._view.served:
                key = model.manifest.model_version
                self.find(key.name, key.version)
                raise ModelNotFound(f"{key.resource} has been replaced by another model of the same version: try again")
            self._users[model] += 1

    def _leave(self, model: ServedModel) -> None:
        with self._changed:
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]
                self._changed.notify_all()

    def close(self) -> None:
        """Compute what is in flight, then close all versions, those that are still used too."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for model in self.models:
            model.close()
        for thread in list(self._retiring):
            thread.join()

    def _change(
        self, put: Mapping[ModelVersion, VersionStatus | None], retire: Iterable[ModelVersion] = (), reason: str = ""
    ) -> None:
        with self._changed:
            statuses = dict(self._view.statuses)
            retired: list[ServedModel] = []
            for key in retire:
                if (status := statuses.get(key)) and status.model:
                    retired.append(status.model)
                    statuses[key] = VersionStatus(key, State.DRAINING, reason)
            for key, new in put.items():
                old = statuses.pop(key, None)
                if old and old.model and (new is None or old.model is not new.model):
                    retired.append(old.model)
                if new is not None:
                    statuses[key] = new
            self._view = self._make_view(statuses)
        for listener in self.on_change:
            listener()
        for model in retired:
            thread = Thread(
                target=self._close_unused, args=[model], name=f"retire-{model.manifest.model_version}", daemon=True
            )
            self._retiring.add(thread)
            thread.start()

    def _make_view(self, statuses: Mapping[ModelVersion, VersionStatus]) -> _View:
        models = {key: status.model for key, status in sorted(statuses.items()) if status.model}
        primaries = {key.name: model for key, model in models.items() if not self.is_shadow(key)}
        for name, number in self._primaries.items():
            if promoted := models.get(ModelVersion(name, number)):
                primaries[name] = promoted
        return _View(dict(sorted(statuses.items())), dict(sorted(primaries.items())), frozenset(models.values()))

    def _close_unused(self, model: ServedModel) -> None:
        """Close a retired version when its last user has left, or the repository is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or not self._users[model])
        model.close()
        return_memory()
        self.forget(model.manifest.model_version, State.DRAINING)
        self._retiring.discard(current_thread())


class _Use(AbstractContextManager[ServedModel]):
    """The block of `ModelRepository.use`. A class, since a generator takes twice as long for each request."""

    __slots__ = ("_model", "_repository")

    def __init__(self, repository: ModelRepository, model: ServedModel) -> None:
        self._repository = repository
        self._model = model

    def __enter__(self) -> ServedModel:
        self._repository._enter(self._model)
        return self._model

    def __exit__(self, *_: object) -> None:
        self._repository._leave(self._model)
