"""Clients that disconnect, stall or fall silent: the server frees what they held, and others are not affected."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.bundles import write_bundle
from tests.support.images import RED, encoded
from tests.support.raw_http2 import PREFACE, RawClient
from tests.support.servers import CountedServer, counted_server
from tests.support.waiting import LIMIT_S, eventually

CLASSIFY = "/pawserve.v1.Classifier/Classify"
REQUEST = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 4).SerializeToString()
MAX_ROWS = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    folder = tmp_path_factory.mktemp("clients")
    write_bundle(folder / "models", slowness=2)
    limits = ("--max-queue-views", MAX_ROWS, "--max-in-flight-mib", 1, "--keepalive", 1, "--keepalive-timeout", 1)
    with counted_server(folder / "models", folder / "state", *limits) as server:
        with Client(server.address, timeout_s=LIMIT_S) as client:
            client.classify([RED] * 8, labels=["red"] * 8)
        yield server


def everything_is_freed(server: CountedServer, before: dict[str, int]) -> bool:
    """Whether the server returns to its earlier counts. gRPC opens a descriptor or two of its own later."""

    def settled() -> bool:
        now = server.counts()
        return (
            now["rows"] == 0
            and now["tasks"] <= before["tasks"]
            and now["threads"] <= before["threads"] + 1
            and now["descriptors"] <= before["descriptors"] + 2
        )

    return eventually(settled)


def whole_queue_is_free(server: CountedServer) -> bool:
    """Whether one request fits that needs the whole queue and nearly all bytes in flight."""
    noise = encoded(Image.effect_noise((72, 72), 90).convert("RGB"), "BMP")
    assert 0.9 < MAX_ROWS * len(noise) / 2**20 < 1
    with Client(server.address, timeout_s=LIMIT_S) as client:
        return all(isinstance(result, Prediction) for result in client.classify([noise] * MAX_ROWS).results)


def classify_until(address: str, stop: threading.Event) -> list[object]:
    results: list[object] = []
    with Client(address, timeout_s=LIMIT_S) as client:
        while not stop.is_set():
            results += client.classify([RED]).results
    return results


@pytest.mark.parametrize("seed", [0, 1])
def test_clients_that_disconnect_during_requests_do_not_affect_others(server: CountedServer, seed: int) -> None:
    rng = random.Random(seed)
    before = server.counts()
    stop = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        steady = [pool.submit(classify_until, server.address, stop) for _ in range(8)]
        for _ in range(50):
            vanishing = [RawClient(server.address) for _ in range(2)]
            for client in vanishing:
                client.call(CLASSIFY, REQUEST, sent=rng.choice([0.0, rng.random(), 1.0]))
            time.sleep(rng.random() / 20)
            for client in vanishing:
                client.vanish()
        stop.set()
        answers = [result for future in steady for result in future.result(LIMIT_S)]
    assert answers
    assert all(isinstance(answer, Prediction) for answer in answers)
    assert everything_is_freed(server, before), (before, server.counts())
    assert whole_queue_is_free(server)


def test_clients_that_stop_sending_within_a_message_hold_no_place(server: CountedServer) -> None:
    before = server.counts()
    writers = [RawClient(server.address) for _ in range(30)]
    for number, writer in enumerate(writers):
        writer.call(CLASSIFY, REQUEST, sent=number / 30)
    assert eventually(lambda: server.counts()["descriptors"] >= before["descriptors"] + 10)
    assert server.counts()["rows"] == 0
    assert whole_queue_is_free(server)
    for writer in writers:
        writer.vanish()
    assert everything_is_freed(server, before), (before, server.counts())


def test_clients_that_do_not_read_responses_hold_no_place(server: CountedServer) -> None:
    before = server.counts()
    readers = [RawClient(server.address, window=0) for _ in range(10)]
    for reader in readers:
        reader.call(CLASSIFY, REQUEST)
    assert eventually(lambda: server.counts()["rows"] == 0)
    assert whole_queue_is_free(server)
    for reader in readers:
        reader.vanish()
    assert everything_is_freed(server, before), (before, server.counts())


def test_connections_without_a_response_to_pings_are_closed(server: CountedServer) -> None:
    """Their other ends stay open and send nothing, as after a network failure."""
    before = server.counts()
    silent = [RawClient(server.address) for _ in range(10)]
    for client in silent[:5]:
        client.call(CLASSIFY, REQUEST, sent=0.5)
    host, port = server.address.split(":")
    never_began = [socket.create_connection((host, int(port)), timeout=LIMIT_S) for _ in range(10)]
    for connection in never_began[:5]:
        connection.sendall(PREFACE[:7])
    assert everything_is_freed(server, before), (before, server.counts())
    for connection in (*never_began, *(client.socket for client in silent)):
        connection.close()
    with Client(server.address, timeout_s=LIMIT_S) as client:
        assert client.health() == "SERVING"
