"""Joins each label with the result of the shadow version for the same image, whichever comes first.

A prediction's token says which shadow version was asked, but not what it predicted: it is sent before that is known. So
the results of shadow versions wait here, in memory, for the labels. They are joined in the transaction of the label if
the result came first, else in one of their own. The store counts each once, whatever arrives how often.

A result that is forgotten, since no label came in time or there are too many, is looked up in the database first: its
label may have gone to another server of the same database. Another process of the same server says so at once.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum, auto

from serving.bundle.model_version import ModelVersion
from serving.statistics.labels import Label, LabelExpired, Previous, ShadowResult
from serving.statistics.shadows.expiring import ExpiringMap
from serving.statistics.store import StatisticsStore, StatisticsUnavailable
from serving.system.logs import RateLimitedLogger

MAX_WAITING = 100_000
"""Most predictions whose shadow result or label is awaited."""
MAX_AGE_S = 86_400.0
"""How long."""
LOOKUP_BATCH = 500
"""Forgotten results that are looked up in the database together."""
RETRY_S = 5.0
"""How long after the database failed results are written again."""
CLOSE_S = 5.0

JOINED, LATER, UNKNOWN = "joined", "later", "unknown"
"""Whether the shadow's result for a label was known, is to come, or is not known here: it was dropped, forgotten or
lost with its process, or another process has it and counts it."""

_PACKED = struct.Struct("=QId")
_logger = RateLimitedLogger(logging.getLogger(__name__), logging.WARNING)


class _Awaited(Enum):
    """What is missing of a prediction with a shadow version."""

    RESULT = auto()
    """The result; there is no label yet."""
    LATE_RESULT = auto()
    """The result; its label is on the disk."""


class ShadowLabels:
    """The predictions whose shadow results or labels are awaited. For one event loop, but for `close`.

    Args:
        store: counts the pairs.
        on_label: is called with the shadow version and JOINED, LATER or UNKNOWN for the first label of each prediction
            that a shadow version was asked for.
        max_waiting, max_age_s: how many are remembered, and for how long.
        clock: returns seconds.
    """

    def __init__(
        self,
        store: StatisticsStore,
        on_label: Callable[[ModelVersion, str], None],
        *,
        max_waiting: int = MAX_WAITING,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._on_label = on_label
        # results are packed, since there may be many
        self._waiting: ExpiringMap[bytes, bytes | _Awaited] = ExpiringMap(max_waiting, max_age_s, self._forget, clock)
        self._due: list[tuple[bytes, ShadowResult]] = []
        """Results of predictions that have labels."""
        self._forgotten: list[tuple[bytes, ShadowResult]] = []
        self._writing = False
        self.on_unknown: Callable[[Sequence[bytes]], None] = lambda ids: None
        """Is called with the IDs of predictions that were labelled here, and of which nothing is known here."""

    def __len__(self) -> int:
        """Predictions whose shadow result or label is awaited."""
        return len(self._waiting)

    def expect(self, id_: bytes) -> None:
        """A shadow version will classify the image of a prediction."""
        self._waiting.set(id_, _Awaited.RESULT)

    def drop(self, id_: bytes) -> None:
        """There will be no result."""
        self._waiting.pop(id_)

    def finish(self, id_: bytes, result: ShadowResult) -> None:
        """The shadow version has finished."""
        awaited = self._waiting.get(id_)
        if awaited is _Awaited.LATE_RESULT:
            self._waiting.pop(id_)
            self._attach(id_, result)
        elif awaited is _Awaited.RESULT:
            self._waiting.set(id_, _PACKED.pack(result.version, result.predicted, result.probability))

    def join(self, label: Label) -> Label:
        """The label with the shadow's result if that is known; it stays known until `recorded`."""
        awaited = self._waiting.get(label.record.id) if label.record.shadow_version else None
        return Label(label.record, label.actual, _unpack(awaited)) if isinstance(awaited, bytes) else label

    def recorded(self, labels: Sequence[Label], outcomes: Sequence[Previous]) -> None:
        """Labels that `join` returned are on the disk."""
        unknown = []
        for label, outcome in zip(labels, outcomes, strict=True):
            record = label.record
            if not record.shadow_version or isinstance(outcome, LabelExpired):
                continue
            if label.shadow:
                self._waiting.pop(record.id)
                found = JOINED
            else:
                found = self._label(record.id)
            if outcome is None:
                self._on_label(ModelVersion(record.model, record.shadow_version), found)
                if found is UNKNOWN:
                    unknown.append(record.id)
        if unknown:
            self.on_unknown(unknown)

    def recorded_elsewhere(self, ids: Iterable[bytes]) -> None:
        """Another process of the same database has recorded labels for these predictions, which may be of this one."""
        for id_ in ids:
            self._label(id_)

    def close(self) -> None:
        """Count what waits and has a label; call it in another thread, before the store is closed."""
        drained = self._waiting.drain()
        self._forgotten += [(id_, _unpack(awaited)) for id_, awaited in drained if isinstance(awaited, bytes)]
        results = self._due + self._forgotten
        batches = [results[at : at + LOOKUP_BATCH] for at in range(0, len(results), LOOKUP_BATCH)]
        with suppress(StatisticsUnavailable, TimeoutError):
            for future in [self._store.attach_shadows(batch) for batch in batches]:
                future.result(CLOSE_S)

    def _label(self, id_: bytes) -> str:
        """A label without a shadow result is on the disk; returns JOINED, LATER or UNKNOWN."""
        awaited = self._waiting.get(id_)
        if awaited is None:
            return UNKNOWN
        if isinstance(awaited, bytes):
            self._waiting.pop(id_)
            self._attach(id_, _unpack(awaited))
            return JOINED
        self._waiting.set(id_, _Awaited.LATE_RESULT)
        return LATER

    def _forget(self, id_: bytes, awaited: bytes | _Awaited) -> None:
        if isinstance(awaited, bytes):
            self._forgotten.append((id_, _unpack(awaited)))
            if len(self._forgotten) >= LOOKUP_BATCH:
                self._write()

    def _attach(self, id_: bytes, result: ShadowResult) -> None:
        self._due.append((id_, result))
        self._write()

    def _write(self) -> None:
        """Write what is due, in one transaction at a time."""
        if self._writing or not (self._due or len(self._forgotten) >= LOOKUP_BATCH):
            return
        results = self._due + self._forgotten
        self._due, self._forgotten = [], []
        loop = asyncio.get_running_loop()

        def done(future: Future[int]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._written, results, future)

        try:
            self._writing = True
            self._store.attach_shadows(results).add_done_callback(done)
        except StatisticsUnavailable:  # it is closed
            self._writing = False

    def _written(self, results: list[tuple[bytes, ShadowResult]], future: Future[int]) -> None:
        self._writing = False
        if error := future.exception():
            _logger.log(f"results of shadow versions cannot be counted now, and are tried again: {error}")
            self._due = (results + self._due)[-MAX_WAITING:]
            asyncio.get_running_loop().call_later(RETRY_S, self._write)
            return
        self._write()


def _unpack(packed: bytes) -> ShadowResult:
    return ShadowResult(*_PACKED.unpack(packed))
