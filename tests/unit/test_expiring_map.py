"""A mapping of bounded size whose entries expire, against a plain list of what was set when."""

from hypothesis import given
from hypothesis import strategies as st

from serving.statistics.shadows.expiring import ExpiringMap

STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "get", "pop", "wait"]), st.integers(0, 5), st.integers(0, 40)), max_size=60
)


@given(steps=STEPS, limit=st.integers(1, 4))
def test_entries_are_remembered_until_they_expire_or_make_room(steps: list[tuple[str, int, int]], limit: int) -> None:
    now = 0.0
    forgotten: list[tuple[int, int]] = []
    known: ExpiringMap[int, int] = ExpiringMap(
        limit, 100.0, lambda key, value: forgotten.append((key, value)), lambda: now
    )
    model: list[list[float]] = []  # key, value, when it expires; the oldest first
    lost: list[tuple[float, float]] = []

    def expire() -> None:
        while model and model[0][2] <= now:
            key, value, _ = model.pop(0)
            lost.append((key, value))

    for step, key, value in steps:
        if step == "wait":
            now += value
            continue
        expire()
        found = next((entry for entry in model if entry[0] == key), None)
        if step == "get":
            assert known.get(key) == (found[1] if found else None)
        elif step == "pop":
            assert known.pop(key) == (found[1] if found else None)
            if found:
                model.remove(found)
        else:
            known.set(key, value)
            if found:
                found[1] = value
            else:
                if len(model) == limit:
                    lost.append((model[0][0], model.pop(0)[1]))
                model.append([key, value, now + 100])
        assert len(known) == len(model)
        assert forgotten == lost
    assert list(known.drain()) == [(key, value) for key, value, _ in model]
    assert len(known) == 0
