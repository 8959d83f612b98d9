"""Prediction tokens and labels: count and sign predictions, verify tokens, record labels. Imports no gRPC."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence

from serving.bundle.manifest import Manifest
from serving.statistics.labels import ShadowResult
from serving.statistics.shadows.joining import ShadowLabels
from serving.statistics.store import Label, LabelExpired, StatisticsStore
from serving.system.times import now_ms
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord

MAX_CLASSES_LISTED = 20
IDS_PER_BLOCK = 256


class LabelUnknown(ValueError):
    """A label that is not a class of the version that predicted; `listed` names some of its classes."""

    def __init__(self, label: str, resource: str, classes: Sequence[str]) -> None:
        self.listed = ", ".join(classes[:MAX_CLASSES_LISTED]) + ", …" * (len(classes) > MAX_CLASSES_LISTED)
        super().__init__(f"{label[:100]!r} is not a class of {resource}; its classes are {self.listed}")


class VersionUnknown(LookupError):
    """A valid token of a version that was never registered in these statistics."""


class Feedback:
    """Issues a token for each prediction, and records the labels that come back with tokens.

    Only one thread may issue tokens.

    Args:
        signer: signs and verifies tokens.
        store: counts predictions and labels.
        on_recorded: called with labels that are on the disk.
        shadows: joins labels with the results of shadow versions.
    """

    def __init__(
        self,
        signer: Keyring,
        store: StatisticsStore,
        on_recorded: Callable[[Sequence[Label]], None],
        shadows: ShadowLabels,
    ) -> None:
        self._signer = signer
        self._store = store
        self._on_recorded = on_recorded
        self.shadows = shadows
        self._ids = _random_ids()

    def issue(
        self, manifest: Manifest, predicted: int, probability: float, reference: str = "", shadow_version: int = 0
    ) -> tuple[PredictionRecord, str]:
        """Count a prediction and sign its record; returns the record and the token.

        Args:
            shadow_version: the version that will classify the image as a shadow; 0 for none. `shadows` then gets its
                result.
        """
        record = PredictionRecord(
            id=next(self._ids),
            model=manifest.name,
            version=manifest.version,
            predicted=predicted,
            probability=min(1.0, probability),  # float32 sums may exceed 1 in the last digit
            time_ms=now_ms(),
            reference=reference,
            shadow_version=shadow_version,
        )
        self._store.count_predictions(manifest.model_version, predicted)
        if shadow_version:
            self.shadows.expect(record.id)
        return record, self._signer.sign(record)

    def finish_shadow(self, id_: bytes, manifest: Manifest, predicted: int, probability: float) -> None:
        """Count a prediction of a shadow version, and keep it for the label of the prediction with this ID."""
        self._store.count_predictions(manifest.model_version, predicted)
        self.shadows.finish(id_, ShadowResult(manifest.version, predicted, min(1.0, probability)))

    def read(self, token: str, label: str) -> Label:
        """Verify a token and look up its label.

        Raises:
            TokenError: if the token was not signed by this server.
            TokenExpired: if its key has ended.
            LabelUnknown: if the version has no such class.
            VersionUnknown: if the version was never registered in these statistics.
            StatisticsUnavailable: if the statistics cannot be read.
        """
        record = self._signer.verify(token)
        resource = record.model_version.resource
        classes = self._store.classes_of(record.model_version)
        if classes is None:
            raise VersionUnknown(f"{resource} was never served with these statistics, so its classes are unknown")
        try:
            return Label(record, classes.index(label))
        except ValueError:
            raise LabelUnknown(label, resource, classes) from None

    async def record(self, labels: Sequence[Label]) -> list[int | LabelExpired | None]:
        """Record labels. If the task is cancelled, they are recorded nevertheless.

        Returns:
            For each the class index that was recorded before, None for none, or a LabelExpired if it was not recorded.

        Raises:
            StatisticsUnavailable: if they cannot be recorded; none of them is then.
        """
        return await asyncio.shield(self._record(labels))

    async def _record(self, labels: Sequence[Label]) -> list[int | LabelExpired | None]:
        labels = [self.shadows.join(label) for label in labels]
        outcomes = await asyncio.wrap_future(self._store.record(labels))
        self.shadows.recorded(labels, outcomes)
        pairs = zip(labels, outcomes, strict=True)
        self._on_recorded([label for label, outcome in pairs if not isinstance(outcome, LabelExpired)])
        return outcomes

    def classes_of(self, record: PredictionRecord) -> tuple[str, ...]:
        """The class names of the version that made a prediction whose token `read` has verified."""
        classes = self._store.classes_of(record.model_version)
        assert classes is not None
        return classes


def _random_ids() -> Iterator[bytes]:
    """Yield 16 random bytes at a time, drawn in blocks: each system call releases the interpreter's lock."""
    while True:
        block = os.urandom(16 * IDS_PER_BLOCK)
        yield from (block[at : at + 16] for at in range(0, len(block), 16))
