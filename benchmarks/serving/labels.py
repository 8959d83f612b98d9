"""How many labels a second RecordLabels takes, each on the disk when it is acknowledged.

    python -m benchmarks.serving.labels

A real server with a real SQLite file (or the database of --statistics) and, on the same machine, callers that send
batches one after the other. The tokens are signed beforehand with the server's key. First all labels are new; then each
is corrected. In the end the statistics are compared with what was acknowledged.
"""

import argparse
import json
import platform
import secrets
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving.throughput import running
from serving.client import Client
from serving.statistics.store import StatisticsStore
from serving.system.cpus import available_cpus
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord
from tests.support.bundles import COLOURS, write_bundle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=500, help="labels in a request (500)")
    parser.add_argument("--callers", type=int, default=4, help="requests at once (4)")
    parser.add_argument("--labels", type=int, default=40_000, help="in each round (40000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is measured; the median is told (3)")
    parser.add_argument("--statistics", default="", metavar="URL", help="(SQLite in a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state, database = Path(folder) / "state", arguments.statistics or str(Path(folder) / "statistics.sqlite")
        state.mkdir()
        signer = Keyring(state / "token.key")
        write_bundle(Path(folder) / "models")
        command = ["-m", "serving", "serve", "--models", f"{folder}/models", "--state", str(state)]
        rates: dict[str, list[float]] = {"new": [], "corrected": []}
        with running([*command, "--statistics", database, "--listen", "127.0.0.1:0"]) as address:
            before = labels_in(address)
            for _ in range(arguments.rounds):
                tokens = [sign(signer) for _ in range(arguments.labels)]
                for kind, label in (("new", COLOURS[0]), ("corrected", COLOURS[1])):
                    rates[kind].append(send(address, tokens, label, arguments.batch, arguments.callers))
        with StatisticsStore(database) as store:
            [kept] = store.read("colours", 1)
    acknowledged = before + arguments.rounds * arguments.labels
    assert kept.confusion.total == acknowledged, f"{kept.confusion.total} labels of {acknowledged} are there"
    result = {f"{kind}_labels_per_s": round(statistics.median(values)) for kind, values in rates.items()}
    settings = {"batch": arguments.batch, "callers": arguments.callers, "labels": arguments.labels}
    machine = {"cpus": available_cpus(), "python": platform.python_version()}
    print(json.dumps({**result, "all_kept": kept.confusion.total, **settings, **machine}))
    return 0


def sign(signer: Keyring) -> str:
    """A token as the server would have issued it a moment ago."""
    now_ms = time.time_ns() // 1_000_000
    return signer.sign(PredictionRecord(secrets.token_bytes(16), "colours", 1, secrets.randbelow(3), 0.9, now_ms))


def send(address: str, tokens: list[str], label: str, batch: int, callers: int) -> float:
    """Acknowledged labels a second, until the last of them was acknowledged."""
    batches = [tokens[start : start + batch] for start in range(0, len(tokens), batch)]

    def label_every(first: int) -> None:
        with Client(address, timeout_s=60) as client:
            for tokens_ in batches[first::callers]:
                results = client.record_labels([(token, label) for token in tokens_])
                assert not any(isinstance(result, Exception) for result in results), "a label was refused"

    with ThreadPoolExecutor(callers) as pool:
        begin = time.perf_counter()
        list(pool.map(label_every, range(callers)))
        return len(tokens) / (time.perf_counter() - begin)


def labels_in(address: str) -> int:
    """How many labels the version has."""
    with Client(address) as client:
        return sum(model.labels for model in client.statistics("models/colours"))


if __name__ == "__main__":
    sys.exit(main())
