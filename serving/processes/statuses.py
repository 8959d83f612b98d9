"""The states of versions in several processes, merged into those of the one server that they are."""

from collections.abc import Sequence

from serving.bundle.model_version import ModelVersion
from serving.models.repository import State, VersionStatus

Row = tuple[str, int, int, str]
"""Name, version, number of the state and reason, as they travel between processes."""

_RANK = {State.READY: 0, State.DRAINING: 1, State.LOADING: 2, State.FAILED: 3}


def to_rows(statuses: Sequence[VersionStatus]) -> list[Row]:
    """The statuses of one process."""
    return [(each.version.name, each.version.version, each.state.value, each.reason) for each in statuses]


def merge(by_process: Sequence[Sequence[Row]]) -> list[VersionStatus]:
    """The statuses of all processes together, ordered by name and version.

    A version is ready if it is in all of them. Otherwise it has the state that is furthest from ready, and the reason
    says in how many processes; a version that is ready in some and unknown in others is loading.
    """
    found: dict[ModelVersion, list[tuple[State, str]]] = {}
    for rows in by_process:
        for name, version, state, reason in rows:
            found.setdefault(ModelVersion(name, version), []).append((State(state), reason))
    merged = []
    for key, states in sorted(found.items()):
        worst, why = max(states, key=lambda each: (_RANK[each[0]], bool(each[1])))
        if worst is State.READY and len(states) < len(by_process):
            worst, why = State.LOADING, f"ready in {len(states)} of {len(by_process)} processes"
        elif worst is not State.READY and (count := sum(each is worst for each, _ in states)) < len(by_process):
            why = f"in {count} of {len(by_process)} processes" + (f": {why}" if why else "")
        merged.append(VersionStatus(key, worst, why))
    return merged
