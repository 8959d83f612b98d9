"""The result page of benchmarks.peers."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.common import heading, table
from benchmarks.peers.servers import describe
from benchmarks.rounds import Figures, median_ratio, medians


def to_markdown(results: dict[str, Any]) -> list[str]:
    """The paragraphs of the parts that have been measured so far."""
    facts = f"Server and load share the CPUs. {results['model']}: the same graph and the same decoding for all."
    commands = "\n    ".join(dict.fromkeys(results["commands"].values()))
    page = heading("pawserve and its peers", results | {"command": commands}, facts)
    if "throughput" in results:
        settings = (f"{peer}: {describe(results['settings'][peer])}" for peer in results["throughput"])
        page += [f"Settings: {'; '.join(settings)}."]
        page += _throughput(results["throughput"]) + _limits(results["throughput"], results["limit"])
    if "latency" in results:
        page += _latency(results["latency"])
    if "views" in results:
        page += _views(results["views"])
    return page


def _throughput(throughput: dict[str, Any]) -> list[str]:
    rows = [
        (clients, peer, *_compared(row["pawserve"], row[peer]))
        for peer, by_clients in throughput.items()
        for clients, row in by_clients.items()
    ]
    return [
        "Closed loop, pawserve and one peer in turns; medians of the rounds, and of the rounds' ratios. In brackets: "
        "median latency, and what the load takes of one CPU.",
        table(("clients", "peer", "pawserve images/s", "peer images/s", "pawserve / peer"), rows),
    ]


def _limits(throughput: dict[str, Any], limits: dict[str, list[float]]) -> list[str]:
    """What the same work takes without a server, beside the throughput of each peer with the most clients."""
    rows = []
    for peer, rounds in limits.items():
        row = throughput[peer][max(throughput[peer], key=int)]
        ours, theirs = (
            median(one["images_per_s"] / limit for one, limit in zip(row[name], rounds, strict=True))
            for name in ("pawserve", peer)
        )
        rows.append((peer, f"{median(rounds):.0f}", f"{ours:.2f}", f"{theirs:.2f}", f"{1 / theirs:.2f}"))
    return [
        "The limit: processes bound to a CPU each that decode and compute the same images, in batches of 4, with no "
        "server and no load beside them. No server around this engine and this decoding can be faster.",
        table(("peer", "without a server, images/s", "pawserve / limit", "peer / limit", "limit / peer"), rows),
    ]


def _latency(latency: dict[str, Any]) -> list[str]:
    rows = []
    for name, rounds in latency["rounds"].items():
        percentiles = medians(rounds, "p50_ms", "p95_ms", "p99_ms").values()
        rows.append((name, *(f"{each:.1f}" for each in percentiles), _load_part(rounds)))
    return [
        f"Open loop: {latency['images_per_s']:.0f} requests a second at random times, for each server: half of the "
        "slowest one's capacity. Medians of the rounds.",
        table(("server", "p50 ms", "p95 ms", "p99 ms", "load, of one CPU"), rows),
    ]


def _views(views: dict[str, Any]) -> list[str]:
    rows = [(count, *_compared(row["pawserve"], row["triton"])) for count, row in views.items()]
    return [
        "Test-time augmentation, 16 clients: V views in one request to pawserve, which decodes the image once, and V "
        "requests at once to Triton for the same image. Medians as above.",
        table(("views", "pawserve images/s", "Triton images/s", "pawserve / Triton"), rows),
    ]


def _compared(ours: Sequence[Figures], theirs: Sequence[Figures]) -> tuple[str, ...]:
    """Both rates, and the median of the rounds' ratios."""
    return _rate(ours), _rate(theirs), f"{median_ratio(ours, theirs):.2f}"


def _rate(rounds: Sequence[Figures]) -> str:
    found = medians(rounds, "images_per_s", "p50_ms")
    return f"{found['images_per_s']:.0f} ({found['p50_ms']:.1f} ms; {_load_part(rounds)})"


def _load_part(rounds: Sequence[Figures]) -> str:
    return f"{median(one['cpu_s'] / one['elapsed_s'] for one in rounds):.0%}"
