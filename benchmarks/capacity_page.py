"""Results of `capacity check` and `capacity fleet` in; pages for people out."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any


def check_page(results: dict[str, Any]) -> str:
    """What was fitted, and predictions beside measurements."""
    model, client = results["model"], results["client"]
    loop = model["loop"]
    lines = [
        f"# {results['what'].capitalize()}, {results['date'][:10]}",
        "",
        f"{results['machine']['cpu']}; Python {results['machine']['python']}. {results['network']}; each replica on "
        "one CPU, with one single-threaded engine.",
        "",
        f"    {results['command']}",
        "",
        "Fitted, in milliseconds of CPU time:",
        "",
        *_table(
            ("what", "ms"),
            [
                ("decode, resize and cut a photo, on average", _ms(fmean(model["prepare_s"]))),
                *((f"engine call of {rows} rows", _ms(seconds)) for rows, seconds in model["engine_s"].items()),
                ("event loop, for each request", _ms(loop["request_s"])),
                ("event loop, for each picture", _ms(loop["picture_s"])),
                ("event loop, for each wake", _ms(loop["wake_s"])),
                ("other threads, for each picture, beside these", _ms(model["worker_s"])),
                *((f"more after {_ms(idle_s)} ms of rest", _ms(extra_s)) for idle_s, extra_s in model["rested_s"]),
                ("the load itself, for each request", _ms(client["request_s"] + client["picture_s"])),
                ("the load's gRPC, to read an answer", _ms(client["read_s"])),
                ("the load itself, for each wake", _ms(client["wake_s"])),
            ],
        ),
        "",
        f"A request has {model['request_bytes']:,.0f} bytes, an answer {model['answer_bytes']:,.0f}.",
        "",
        "Requests at random times (Poisson); the simulator got the same times and photos, how much slower or faster "
        "than in the fits the CPUs computed a row meanwhile, and when other programs had them. Both were seen by "
        "programs that know nothing of the server. Rounds of all loads have as many requests. Predicted / measured; of "
        "percentiles the medians of the rounds, and the median of the rounds' ratios: each round's prediction is held "
        "against its own measurement.",
        "",
        *_predictions(results["loads"], "predicted"),
        "",
        "The same for CPUs that are always as fast as they were in the fits, and that no other program uses:",
        "",
        *_predictions(results["loads"], "usual"),
    ]
    return "\n".join(lines) + "\n"


def fleet_page(results: dict[str, Any]) -> str:
    """What fleets need, with the assumptions first."""
    lines = [
        f"# {results['what'].capitalize()}, {results['date'][:10]}",
        "",
        "**Nothing here was measured on a GPU.** The CPUs' costs are fitted on one core (see the other capacity page "
        "of this day); these are assumptions:",
        "",
        *(f"- {assumption}" for assumption in results["assumptions"]),
        "",
        f"    {results['command']}",
        "",
        "What one GPU that never waits needs beside it:",
        "",
        *_table(
            (
                "pictures in a request",
                "pictures/s",
                "CPU cores",
                "of them for decoding",
                "one process's loop, pictures/s",
                "processes",
                "Gbit/s",
            ),
            [
                (
                    need["pictures"],
                    f"{need['rows_per_s']:,.0f}",
                    need["cpus"],
                    f"{need['decode_cpus']:.1f}",
                    f"{need['loop_pictures_per_s']:,.0f}",
                    need["processes"],
                    f"{need['gbit_per_s']:.1f}",
                )
                for need in results["needs"]
            ],
        ),
        "",
        "Fleets whose GPUs work for 70% of the time, one picture in a request:",
        "",
        *_table(
            (
                "GPUs",
                "pictures/s",
                "CPU cores",
                "processes",
                "Gbit/s",
                "network cards",
                f"labelled share that {results['labels_per_s']:,.0f} labels/s allow",
            ),
            [
                (
                    f"{row['gpus']:,.0f}",
                    f"{row['pictures_per_s']:,.0f}",
                    f"{row['cpus']:,.0f}",
                    f"{row['processes']:,.0f}",
                    f"{row['gbit_per_s']:,.0f}",
                    f"{row['network_cards']:,.0f}",
                    f"{row['labelled_share_at_most']:.1%}",
                )
                for row in results["fleets"]
            ],
        ),
        "",
        f"Simulated: {results['simulated_gpus']} GPUs with 16 cores and 8 processes each, 50 clients for each GPU, of "
        "which each asks as often as the others. p50 and p99 in milliseconds, by how clients choose a process:",
        "",
        *_waits(results["waits"]),
    ]
    return "\n".join(lines) + "\n"


def _predictions(loads: list[dict[str, Any]], name: str) -> list[str]:
    head = ("load", "offered/s", "answered/s", "ratio", "CPUs busy", "p50 ms", "ratio", "p99 ms", "ratio")
    rows = [
        (
            f"{row['load']:.0%}",
            f"{row['offered_per_s']:.0f}",
            *_both(row, name, "per_s", "{:.1f}"),
            f"{row[f'{name}_busy']:.0%} / {row['measured_busy']:.0%}",
            *_both(row, name, "p50_ms", "{:.1f}"),
            *_both(row, name, "p99_ms", "{:.1f}"),
        )
        for row in loads
    ]
    return _table(head, rows)


def _waits(waits: list[dict[str, Any]]) -> list[str]:
    balances = list(dict.fromkeys(row["balance"] for row in waits))
    rows = []
    for utilisation in dict.fromkeys(row["utilisation"] for row in waits):
        own = [row for row in waits if row["utilisation"] == utilisation]
        cells = [_wait(row) for row in own]
        rows.append((f"{utilisation:.0%}", f"{own[0]['cpu_busy']:.0%}", f"{own[0]['rows_per_call']:.1f}", *cells))
    return _table(("GPU load", "CPUs busy", "rows in a call", *(name.replace("_", " ") for name in balances)), rows)


def _wait(row: dict[str, Any]) -> str:
    refused = 1 - row["answered_share"]
    return f"{row['p50_ms']:.1f}, {row['p99_ms']:.1f}" + (f" ({refused:.1%} refused)" if refused else "")


def _both(row: dict[str, Any], name: str, what: str, form: str) -> tuple[str, str]:
    predicted, measured = row[f"{name}_{what}"], row[f"measured_{what}"]
    return f"{form.format(predicted)} / {form.format(measured)}", f"{row[f'{name}_{what}_ratio']:.2f}"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    lines = [f"| {' | '.join(map(str, head))} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}"
