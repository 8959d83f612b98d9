"""The results of benchmarks.peers in; a page for people out."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.peers.servers import describe

Round = dict[str, float]


def to_markdown(results: dict[str, Any]) -> str:
    """What has been measured so far, as a page."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        f"# pawserve and its peers, {results['date'][:10]}",
        "",
        f"{machine['cpus']} CPUs of {machine['cpu']}, which server and load share; Python {machine['python']}; "
        f"{versions}. {results['model']}: the same graph and the same decode for all.",
        "",
        *(f"    {command}" for command in results["commands"].values()),
        *_settings(results.get("settings", {})),
        *_throughput(results.get("throughput", {})),
        *_limits(results.get("throughput", {}), results.get("limit", {})),
        *_latency(results.get("latency")),
    ]
    return "\n".join(lines) + "\n"


def _settings(settings: dict[str, Any]) -> list[str]:
    if not settings:
        return []
    lines = ["", "Settings that each peer tried, images a second at 16 and at 64 callers; the best is kept:", ""]
    lines += ["| peer | setting | 16 | 64 |", "|---|---|---|---|"]
    for peer, tries in settings.items():
        for one in tries["tried"]:
            rates = " | ".join(f"{one['images_per_s'][callers]:.0f}" for callers in ("16", "64"))
            best = " (kept)" if one["setting"] == tries["best"] else ""
            lines.append(f"| {peer} | {describe(one['setting'])}{best} | {rates} |")
    return lines


def _throughput(throughput: dict[str, Any]) -> list[str]:
    if not throughput:
        return []
    lines = [
        "",
        "Closed loop, pawserve and one peer by turns; medians of the rounds, and of the rounds' ratios. In brackets: "
        "median latency, and what the load takes of one CPU.",
        "",
        "| callers | peer | pawserve images/s | peer images/s | pawserve / peer |",
        "|---|---|---|---|---|",
    ]
    for peer, by_callers in throughput.items():
        for callers, row in by_callers.items():
            ratios = [
                one["images_per_s"] / other["images_per_s"]
                for one, other in zip(row["pawserve"], row[peer], strict=True)
            ]
            lines.append(
                f"| {callers} | {peer} | {_rate(row['pawserve'])} | {_rate(row[peer])} | {median(ratios):.2f} |"
            )
    return lines


def _limits(throughput: dict[str, Any], limits: dict[str, list[float]]) -> list[str]:
    """What the same work takes without a server, beside the most that each peer served."""
    if not limits:
        return []
    lines = [
        "",
        "The limit: processes bound to a CPU each that decode and compute the same photos, in batches of 4, with no "
        "server and no load beside them. No server around this engine and this decode can be faster than that.",
        "",
        "| beside | without a server, images/s | pawserve / limit | peer / limit | limit / peer, the most to be had |",
        "|---|---|---|---|---|",
    ]
    for peer, rounds in limits.items():
        row = throughput[peer][max(throughput[peer], key=int)]
        ours, theirs = (
            median(one["images_per_s"] / limit for one, limit in zip(row[name], rounds, strict=True))
            for name in ("pawserve", peer)
        )
        lines.append(f"| {peer} | {median(rounds):.0f} | {ours:.2f} | {theirs:.2f} | {1 / theirs:.2f} |")
    return lines


def _rate(rounds: Sequence[Round]) -> str:
    rate, p50 = (median(one[name] for one in rounds) for name in ("images_per_s", "p50_ms"))
    share = median(one["cpu_s"] / one["elapsed_s"] for one in rounds)
    return f"{rate:.0f} ({p50:.1f} ms; {share:.0%})"


def _latency(latency: dict[str, Any] | None) -> list[str]:
    if latency is None:
        return []
    lines = [
        "",
        f"Open loop: {latency['images_per_s']:.0f} requests a second, arriving at random, for each server: half of "
        "what the slowest can. Medians of the rounds.",
        "",
        "| server | p50 ms | p95 ms | p99 ms | load's share |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in latency["rounds"].items():
        p50, p95, p99 = (median(one[f"p{share}_ms"] for one in rounds) for share in (50, 95, 99))
        share = median(one["cpu_s"] / one["elapsed_s"] for one in rounds)
        lines.append(f"| {name} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {share:.0%} of one CPU |")
    return lines
