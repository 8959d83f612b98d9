"""How long a shadow version pauses on a busy host."""

import pytest

from serving.shadows.queue import MAX_PAUSE_S, pause_after


@pytest.mark.parametrize(
    ("denied_s", "expected_s"),
    [(0.0, 0.0), (-0.001, 0.0), (0.0009, 0.0), (0.006, 0.02), (0.051, 0.2), (10.0, MAX_PAUSE_S)],
)
def test_it_grows_with_the_time_for_which_the_engine_had_no_cpu(denied_s: float, expected_s: float) -> None:
    assert pause_after(denied_s) == pytest.approx(expected_s)
