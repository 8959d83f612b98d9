"""Labels whose client leaves while they are written: they count as those of a client that stays."""

import asyncio
import secrets
from concurrent.futures import Future
from typing import Any

import pytest

from serving.statistics.feedback import Feedback
from serving.statistics.store import Label
from serving.tokens.tokens import PredictionRecord


class SlowStore:
    """Statistics whose writes end when `written` gets a result."""

    def __init__(self) -> None:
        self.written: Future[list[None]] = Future()

    def record(self, labels: list[Label]) -> Future[list[None]]:
        return self.written


class Joined:
    """The labels of shadow versions."""

    def __init__(self) -> None:
        self.recorded_labels: list[Label] = []

    def join(self, label: Label) -> Label:
        return label

    def recorded(self, labels: list[Label], outcomes: list[None]) -> None:
        self.recorded_labels += labels


def test_a_label_counts_though_its_client_has_left() -> None:
    async def test() -> None:
        store: Any = SlowStore()
        joined: Any = Joined()
        signer: Any = None
        counted: list[Label] = []
        feedback = Feedback(signer, store, counted.extend, joined)
        label = Label(PredictionRecord(secrets.token_bytes(16), "pets", 1, 0, 0.9, 1), 0)
        call = asyncio.create_task(feedback.record([label]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        store.written.set_result([None])
        while not counted:
            await asyncio.sleep(0.001)
        assert counted == joined.recorded_labels == [label]

    asyncio.run(test())
