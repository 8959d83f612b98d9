"""Predictions in, tokens out; tokens and true labels in, recorded labels out. No gRPC here."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence

from serving.bundle.manifest import Manifest
from serving.statistics.store import Label, LabelExpired, StatisticsStore
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord

MAX_CLASSES_LISTED = 20
IDS_AT_ONCE = 256


class LabelUnknown(ValueError):
    """A label that the predicting version has no class for; `listed` are some of those that it has."""

    def __init__(self, label: str, resource: str, classes: Sequence[str]) -> None:
        self.listed = ", ".join(classes[:MAX_CLASSES_LISTED]) + ", …" * (len(classes) > MAX_CLASSES_LISTED)
        super().__init__(f"{label[:100]!r} is no class of {resource}; its classes are {self.listed}")


class VersionUnknown(LookupError):
    """A token of ours, of a version that these statistics have never seen."""


class Feedback:
    """Issues a token for each prediction, and records what its holder finds to be true.

    Only one thread may issue tokens.
    """

    def __init__(self, signer: Keyring, store: StatisticsStore, on_recorded: Callable[[Sequence[Label]], None]) -> None:
        self._signer = signer
        self._store = store
        self._on_recorded = on_recorded  # hears of labels that are on the disk
        self._ids = _random_ids()

    def issue(self, manifest: Manifest, predicted: int, probability: float) -> tuple[PredictionRecord, str]:
        """Count a prediction, and sign what RecordLabels will want to know of it."""
        record = PredictionRecord(
            id=next(self._ids),
            model=manifest.name,
            version=manifest.version,
            predicted=predicted,
            probability=min(1.0, probability),  # float32 sums may exceed 1 in the last digit
            time_ms=time.time_ns() // 1_000_000,
        )
        self._store.count_predictions(manifest.name, manifest.version, predicted)
        return record, self._signer.sign(record)

    def read(self, token: str, label: str) -> Label:
        """What a token and a label say.

        Raises:
            TokenError: if the token was not signed here.
            TokenExpired: if the key that signed it has ended.
            LabelUnknown: if the predicting version has no such class.
            VersionUnknown: if the statistics do not know the version's classes.
            StatisticsUnavailable: if the statistics cannot be read.
        """
        record = self._signer.verify(token)
        resource = record.model_version.resource
        classes = self._store.classes_of(record.model, record.version)
        if classes is None:
            raise VersionUnknown(f"{resource} was never served with these statistics, so its classes are unknown")
        try:
            return Label(record, classes.index(label))
        except ValueError:
            raise LabelUnknown(label, resource, classes) from None

    async def record(self, labels: Sequence[Label]) -> list[int | LabelExpired | None]:
        """Record what turned out to be true.

        Returns:
            For each the class index that was recorded before, or None; LabelExpired for one that was not recorded.

        Raises:
            StatisticsUnavailable: if it cannot be recorded; then none of them is.
        """
        outcomes = await asyncio.wrap_future(self._store.record(labels))
        pairs = zip(labels, outcomes, strict=True)
        self._on_recorded([label for label, outcome in pairs if not isinstance(outcome, LabelExpired)])
        return outcomes

    def classes_of(self, record: PredictionRecord) -> tuple[str, ...]:
        """The class names of the version that made a prediction which `read` has accepted."""
        classes = self._store.classes_of(record.model, record.version)
        assert classes is not None
        return classes


def _random_ids() -> Iterator[bytes]:
    """16 random bytes each, drawn many at a time: the system call lets go of the interpreter's lock."""
    while True:
        block = os.urandom(16 * IDS_AT_ONCE)
        yield from (block[at : at + 16] for at in range(0, len(block), 16))
