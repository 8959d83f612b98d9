"""A folder models/NAME/VERSION in; the model versions that are served out, found by their names.

Any thread may change it and look; each change is one assignment, so whoever looks sees it whole.
"""

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from threading import Event, Lock, Thread

from serving.bundle.folder import find_bundles
from serving.bundle.model_version import ModelVersion, resource_name
from serving.models.loader import ServedModel, ServingOptions, load_model
from serving.system.memory import return_memory

__all__ = [
    "ModelNotFound",
    "ModelRepository",
    "ServedModel",
    "ServingOptions",
    "State",
    "VersionStatus",
    "find_bundles",
    "load_model",
]

LOOK_AGAIN_S = 2.0
"""How often what keeps a model from closing is looked for among garbage."""


class ModelNotFound(LookupError):
    """A well-formed name of a model or version that is not served; the message lists those that are."""


class State(Enum):
    """What becomes of a version; the values are those of the API's ModelState."""

    LOADING = 1
    READY = 2
    DRAINING = 3
    FAILED = 4


@dataclass(frozen=True)
class VersionStatus:
    """What is known of a version, served or not."""

    version: ModelVersion
    state: State
    reason: str = ""
    model: ServedModel | None = None
    """There if it is ready."""


@dataclass(frozen=True)
class _View:
    """What is served at one moment."""

    statuses: Mapping[ModelVersion, VersionStatus]
    newest: Mapping[str, ServedModel]

    @classmethod
    def of(cls, statuses: Mapping[ModelVersion, VersionStatus]) -> "_View":
        ordered = dict(sorted(statuses.items()))
        return cls(ordered, {key.name: status.model for key, status in ordered.items() if status.model})


class ModelRepository:
    """The versions that are served, and what became of the others."""

    def __init__(self) -> None:
        self._view = _View({}, {})
        self._lock = Lock()  # for whoever makes another view of this one
        self._draining: set[Thread] = set()
        self._closing = False
        self.loaded: Counter[str] = Counter()
        """Model name -> versions that were taken into service."""
        self.refused: Counter[str] = Counter()
        """Model name -> versions that were refused."""
        self.on_change: list[Callable[[], None]] = []
        """Called after each change, in the thread that made it."""

    def add(self, model: ServedModel, retire: Iterable[ModelVersion] = ()) -> None:
        """Serve one more version, or another one instead of those to retire, in one step.

        What is retired, or was served under the same version, finds no new callers from now on; when the last one is
        answered, its engines are closed and their memory is returned.
        """
        key = model.manifest.model_version
        self.loaded[key.name] += 1
        self._change({key: VersionStatus(key, State.READY, model=model)}, retire, f"replaced by {key.resource}")

    def retire(self, keys: Iterable[ModelVersion], reason: str) -> None:
        """Serve some versions no longer; callers that they have are answered."""
        self._change({}, keys, reason)

    def mark(self, key: ModelVersion, state: State, reason: str) -> None:
        """Note what becomes of a version; of one that is served, only the reason is noted."""
        if state is State.FAILED:
            self.refused[key.name] += 1
        old = self._view.statuses.get(key)
        new = replace(old, reason=reason) if old and old.model else VersionStatus(key, state, reason)
        if new != old:
            self._change({key: new})

    def forget(self, key: ModelVersion, state: State) -> None:
        """Remove what was noted of a version, if it is still in that state."""
        status = self._view.statuses.get(key)
        if status is not None and status.state is state:
            self._change({key: None})

    @property
    def models(self) -> list[ServedModel]:
        """All versions that are served, ordered by name and version."""
        return [status.model for status in self._view.statuses.values() if status.model]

    @property
    def statuses(self) -> list[VersionStatus]:
        """All versions that are known, ordered by name and version."""
        return list(self._view.statuses.values())

    def find(self, name: str, version: int | None) -> ServedModel:
        """A version, or the newest one.

        Raises:
            ModelNotFound: if it is not served.
        """
        view = self._view
        if version is None:
            model = view.newest.get(name)
        else:
            status = view.statuses.get(ModelVersion(name, version))
            model = status.model if status else None
        if model is None:
            served = ", ".join(model.manifest.resource for model in self.models) or "nothing now"
            raise ModelNotFound(f"{resource_name(name, version)} is not served here; there is {served}")
        return model

    def close(self) -> None:
        """Compute what is in flight, then stop all engines."""
        self._closing = True
        for model in self.models:
            model.close()
        for thread in list(self._draining):
            thread.join()

    def _change(
        self, put: Mapping[ModelVersion, VersionStatus | None], retire: Iterable[ModelVersion] = (), reason: str = ""
    ) -> None:
        with self._lock:
            statuses = dict(self._view.statuses)
            left: list[ServedModel] = []
            for key in retire:
                if (status := statuses.get(key)) and status.model:
                    left.append(status.model)
                    statuses[key] = VersionStatus(key, State.DRAINING, reason)
            for key, new in put.items():
                old = statuses.pop(key, None)
                if old and old.model and (new is None or old.model is not new.model):
                    left.append(old.model)
                if new is not None:
                    statuses[key] = new
            self._view = _View.of(statuses)
        for listener in self.on_change:
            listener()
        while left:
            self._drain(left.pop())

    def _drain(self, model: ServedModel) -> None:
        """Close a model once nobody holds it or its classifier: who found it may still begin with it."""
        key = model.manifest.model_version
        free = Event()
        weakref.finalize(model.classifier, free.set)
        batcher, engines = model.batcher, model.engines  # and not the model, which holds the classifier

        def close() -> None:
            while not free.wait(LOOK_AGAIN_S) and not self._closing:
                gc.collect()  # exceptions may hold it in cycles
            batcher.close()
            for engine in engines:
                engine.close()
            return_memory()
            self.forget(key, State.DRAINING)
            self._draining.discard(thread)

        thread = Thread(target=close, name=f"drain-{key}", daemon=True)
        self._draining.add(thread)
        thread.start()
