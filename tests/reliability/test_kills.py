"""SIGKILL under load, repeatedly: every acknowledged label is kept exactly once, and no others exist.

PAWSERVE_KILL_ROUNDS is the number of kills, PAWSERVE_KILL_SEED (0) the seed of their moments and of the calls.
"""

import os
import random
import time
from pathlib import Path

import pytest

from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.labelling import LabellingClient, check_labels, kill_under_load
from tests.support.servers import KilledServer

ROUNDS = int(os.environ.get("PAWSERVE_KILL_ROUNDS", "6"))
SEED = int(os.environ.get("PAWSERVE_KILL_SEED", "0"))


@pytest.mark.timeout(300 + 60 * ROUNDS)
def test_kills_under_load_lose_no_acknowledged_label_and_invent_none(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    write_bundle(tmp_path / "models")
    clients = [LabellingClient(rng.getrandbits(32)) for _ in range(3)]
    kept = 0
    for number in range(ROUNDS):
        if number % 5 == 4:  # while it starts: it may be opening, or repairing, its database
            starting = KilledServer(tmp_path / "models", tmp_path / "state")
            time.sleep(rng.uniform(0.2, 1.2))
            starting.kill()
        server = KilledServer(tmp_path / "models", tmp_path / "state")
        server.wait_until_ready()
        kept = check_labels(tmp_path / "state" / "statistics.sqlite", clients)
        if kept:
            with Client(server.address) as client:
                assert client.statistics()[0].labels == kept
        kill_under_load(server, clients, rng)
    kept = check_labels(tmp_path / "state" / "statistics.sqlite", clients)
    acknowledged = sum(len(client.acknowledged) for client in clients)
    print(f"\n{ROUNDS} kills; {acknowledged} predictions with acknowledged labels, {kept} with labels in the database")
