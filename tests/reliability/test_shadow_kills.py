"""SIGKILL while labels arrive for images that a shadow version classifies too, repeatedly.

Every acknowledged label is kept exactly once, and each result of the shadow version that met its label counts exactly
once, for the shadow version and for the pair. PAWSERVE_KILL_ROUNDS is the number of kills, PAWSERVE_KILL_SEED (0) the
seed of their moments and of the calls.
"""

import os
import random
from pathlib import Path

import pytest

from serving.client import Client
from tests.support.bundles import COLOURS, write_bundle
from tests.support.labelling import LabellingClient, check_labels, check_shadows, kill_under_load
from tests.support.servers import KilledServer
from tests.support.statistics import RED
from tests.support.waiting import LIMIT_S, eventually

ROUNDS = int(os.environ.get("PAWSERVE_KILL_ROUNDS", "3"))
SEED = int(os.environ.get("PAWSERVE_KILL_SEED", "0"))


@pytest.mark.timeout(300 + 60 * ROUNDS)
def test_kills_lose_no_acknowledged_label_and_count_nothing_twice_with_a_shadow_version(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2, classes=COLOURS[::-1])  # it takes red for blue
    database = tmp_path / "state" / "statistics.sqlite"
    clients = [LabellingClient(rng.getrandbits(32)) for _ in range(3)]
    kept = pairs = 0
    for _ in range(ROUNDS):
        server = KilledServer(tmp_path / "models", tmp_path / "state", "--shadow", "colours/2")
        server.wait_until_ready()
        kept, pairs = check_labels(database, clients), check_shadows(database)
        if pairs:
            with Client(server.address) as client:
                assert [each.labels for each in client.statistics()] == [kept, pairs]
        kill_under_load(server, clients, rng)
    server = KilledServer(tmp_path / "models", tmp_path / "state", "--shadow", "colours/2")
    server.wait_until_ready()
    pairs = check_shadows(database)
    with Client(server.address, timeout_s=LIMIT_S) as client:  # on a busy machine there may be no result before a kill
        (result,) = client.classify([RED]).results
        client.record_labels([(result.token, "red")])
    assert eventually(lambda: check_shadows(database) == pairs + 1)
    server.kill()
    assert check_shadows(database) == pairs + 1
    clients[0].possible[result.token] = {"red"}
    clients[0].acknowledged.add(result.token)
    kept, pairs = check_labels(database, clients), check_shadows(database)
    print(f"\n{ROUNDS} kills; {kept} labels in the database, {pairs} of them with the shadow version's result")
