"""How many labels a second RecordLabels stores, each on the disk when it is acknowledged.

    python -m benchmarks.serving.labels --models MODELS

A real server with a real SQLite file (or the database of --statistics) and, on the same machine, clients that send
batches one after the other. The tokens are signed beforehand with the server's key. First all labels are new; then each
is corrected. At the end the number of labels in the statistics is compared with the number acknowledged.
"""

import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.common import circumstances, heading, make_parser, table, write_results
from benchmarks.processes import pawserve
from serving.bundle.folder import find_bundles
from serving.bundle.manifest import Manifest
from serving.client import Client
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord


def main() -> None:
    """Parse the arguments, measure, and write the result page."""
    parser = make_parser(__doc__, "models", rounds=3)
    parser.add_argument("--batch", type=int, default=500, help="labels in a request (500)")
    parser.add_argument("--clients", type=int, default=4, help="requests at once (4)")
    parser.add_argument("--labels", type=int, default=40_000, help="in each round (40000)")
    parser.add_argument("--statistics", default="", metavar="URL", help="(SQLite in a temporary folder)")
    arguments = parser.parse_args()
    manifest = find_bundles(arguments.models, [])[0].manifest
    results = circumstances("labels", ())
    rates: dict[str, list[float]] = {"new": [], "corrected": []}
    with tempfile.TemporaryDirectory() as state:
        keyring = Keyring(Path(state) / "token.key")
        database = arguments.statistics or Path(state) / "statistics.sqlite"
        own = ("--state", state, "--statistics", database)
        with pawserve(arguments.models, *own) as server, Client(server.address) as client:
            before = count_labels(client, manifest)
            for _ in range(arguments.rounds):
                tokens = [sign(keyring, manifest) for _ in range(arguments.labels)]
                for kind, label in zip(rates, manifest.classes, strict=False):
                    rates[kind].append(send(server.address, tokens, label, arguments.batch, arguments.clients))
            stored = count_labels(client, manifest) - before
    if stored != arguments.rounds * arguments.labels:
        raise RuntimeError(f"{stored:,} of {arguments.rounds * arguments.labels:,} acknowledged labels are stored")
    results |= {f"{kind}_labels_per_s": statistics.median(each) for kind, each in rates.items()}
    facts = (
        f"Requests of {arguments.batch} labels from {arguments.clients} clients, {arguments.labels:,} labels a round, "
        f"medians of {arguments.rounds} rounds. All {stored:,} labels were in the statistics afterwards."
    )
    rows = [(f"{kind} labels", f"{results[f'{kind}_labels_per_s']:,.0f}") for kind in rates]
    write_results(results, [*heading("Labels", results, facts), table(("", "labels/s"), rows)])


def sign(keyring: Keyring, manifest: Manifest) -> str:
    """A token as the server would have issued it a moment ago."""
    now_ms = time.time_ns() // 1_000_000
    predicted = secrets.randbelow(len(manifest.classes))
    record = PredictionRecord(secrets.token_bytes(16), manifest.name, manifest.version, predicted, 0.9, now_ms)
    return keyring.sign(record)


def send(address: str, tokens: Sequence[str], label: str, batch: int, clients: int) -> float:
    """Acknowledged labels a second, until the last of them was acknowledged."""
    batches = [tokens[start : start + batch] for start in range(0, len(tokens), batch)]

    def send_every(first: int) -> None:
        with Client(address, timeout_s=60) as client:
            for each in batches[first::clients]:
                results = client.record_labels([(token, label) for token in each])
                if any(isinstance(result, Exception) for result in results):
                    raise RuntimeError(f"a label was rejected: {results}")

    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        list(pool.map(send_every, range(clients)))
        return len(tokens) / (time.perf_counter() - began)


def count_labels(client: Client, manifest: Manifest) -> int:
    """Labels of the served version."""
    return sum(model.labels for model in client.statistics(f"models/{manifest.name}"))


if __name__ == "__main__":
    main()
