"""Clients that record labels until the server is gone, and remember which labels were sent and acknowledged.

`check_labels` compares a database with them.
"""

import random
import sqlite3
import threading
import time
from base64 import urlsafe_b64decode
from collections import Counter
from contextlib import closing
from pathlib import Path

import grpc

from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import COLOURS
from tests.support.servers import KilledServer
from tests.support.statistics import RED
from tests.support.waiting import LIMIT_S, eventually


def prediction_id(token: str) -> bytes:
    """The database's ID of a prediction: bytes 1 to 16 of its token."""
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))[1:17]


class LabellingClient:
    """A seeded client that predicts, labels, corrects and repeats labels, in one thread.

    `possible` has, for each token whose label was sent, the labels that may have been recorded for it: the last one
    acknowledged, and those sent since.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._unlabelled: list[str] = []
        self.possible: dict[str, set[str]] = {}
        self.acknowledged: set[str] = set()
        self.labels_of_lost_answers = 0
        """Labels sent with images that got no response: they may be recorded, under tokens that nobody has."""

    def call_until_gone(self, address: str) -> None:
        """Send requests until the server no longer answers; raise any other error."""
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:  # its own connection
            stub = pb_grpc.ClassifierStub(channel)
            try:
                while True:
                    self._random.choice([self._predict, self._label, self._label, self._label_again])(stub)
            except grpc.RpcError as error:
                # CANCELLED: the connection broke between the answer's parts
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise

    def _predict(self, stub: pb_grpc.ClassifierStub) -> None:
        labels = [self._random.choice(["", *COLOURS]) for _ in range(self._random.randint(1, 32))]
        sent = sum(map(bool, labels))
        self.labels_of_lost_answers += sent
        images = [pb.ImageInput(content=RED, label=label) for label in labels]
        answer = stub.Classify(pb.ClassifyRequest(images=images), timeout=LIMIT_S)
        self.labels_of_lost_answers -= sent
        for label, result in zip(labels, answer.results, strict=True):
            token = result.prediction.token
            assert token, result.error
            if label:
                self.possible[token] = {label}
                self.acknowledged.add(token)
            else:
                self._unlabelled.append(token)

    def _label(self, stub: pb_grpc.ClassifierStub) -> None:
        count = min(len(self._unlabelled), self._random.choice([1, 5, 100]))
        chosen = [self._unlabelled.pop() for _ in range(count)]
        self._record(stub, {token: self._random.choice(COLOURS) for token in chosen})

    def _label_again(self, stub: pb_grpc.ClassifierStub) -> None:
        """Record labels again that were sent before, acknowledged or not: the same labels or corrections."""
        chosen = self._random.sample(list(self.possible), min(len(self.possible), 10))
        self._record(stub, {token: self._random.choice(COLOURS) for token in chosen})

    def _record(self, stub: pb_grpc.ClassifierStub, labels: dict[str, str]) -> None:
        if not labels:
            return
        for token, label in labels.items():
            self.possible.setdefault(token, set()).add(label)
        inputs = [pb.LabelInput(token=token, label=label) for token, label in labels.items()]
        answer = stub.RecordLabels(pb.RecordLabelsRequest(labels=inputs), timeout=LIMIT_S)
        for (token, label), result in zip(labels.items(), answer.results, strict=True):
            assert result.recorded.label == label, result.error
            self.possible[token] = {label}
            self.acknowledged.add(token)


def kill_under_load(server: KilledServer, clients: list[LabellingClient], rng: random.Random) -> None:
    """Kill a server while the clients, each in a thread, call it and after it has acknowledged labels."""

    def acknowledged() -> int:
        return sum(len(client.acknowledged) for client in clients)

    before = acknowledged()
    threads = [threading.Thread(target=client.call_until_gone, args=(server.address,)) for client in clients]
    for thread in threads:
        thread.start()
    assert eventually(lambda: acknowledged() > before)
    time.sleep(rng.uniform(0, 0.6))
    server.kill()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def check_labels(database: Path, clients: list[LabellingClient]) -> int:
    """Assert that a database has each acknowledged label of version 1 once and no unsent one; return their number."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT id, actual FROM labels").fetchall()
        counted = dict(connection.execute("SELECT actual, sum(count) FROM outcomes WHERE version = 1 GROUP BY actual"))
    kept = {bytes(id_): COLOURS[actual] for id_, actual in rows}
    assert len(kept) == len(rows)
    # what was counted is what was recorded
    assert {actual: count for actual, count in counted.items() if count} == Counter(actual for _, actual in rows)
    known: set[bytes] = set()
    for client in clients:
        for token, labels in client.possible.items():
            known.add(prediction_id(token))
            if token in client.acknowledged:
                assert prediction_id(token) in kept, "an acknowledged label is lost"
            assert kept.get(prediction_id(token), next(iter(labels))) in labels, "another label than any that was sent"
    assert len(kept.keys() - known) <= sum(client.labels_of_lost_answers for client in clients)
    return len(kept)


def check_shadows(database: Path) -> int:
    """Assert that each result of the shadow version 2 counts once, for it and for the pair; return how many do."""
    with closing(sqlite3.connect(database)) as connection:

        def cells(query: str) -> dict[tuple[int, ...], int]:
            return {tuple(key): count for *key, count in connection.execute(query)}

        row = "SELECT shadow_actual, shadow_predicted, count(*) FROM labels WHERE shadow_version = 2 GROUP BY 1, 2"
        total = "SELECT actual, predicted, sum(count) FROM outcomes WHERE version = 2 GROUP BY 1, 2 HAVING sum(count)"
        assert cells(row) == cells(total)
        correct = "SELECT actual, actual = predicted, shadow_actual = shadow_predicted, count(*) FROM labels "
        pair = correct + "WHERE shadow_version = 2 GROUP BY 1, 2, 3"
        assert cells(pair) == cells(
            "SELECT actual, version_correct, shadow_correct, count FROM paired_outcomes WHERE count"
        )
        return sum(cells(row).values())
