"""How long a shadow version pauses on a busy host."""

import pytest

from serving.shadows.queue import MAX_PAUSE_S, pause_after


@pytest.mark.parametrize(
    ("wall_s", "cpu_s", "expected_s"),
    [
        (0.005, 0.005, 0.0),  # the thread had its CPU all the time
        (0.005, 0.006, 0.0),  # clocks differ
        (0.0059, 0.005, 0.0),
        (0.011, 0.005, 0.02),
        (0.055, 0.004, 0.2),
        (10.0, 0.005, MAX_PAUSE_S),
    ],
)
def test_it_grows_with_the_time_for_which_the_thread_had_no_cpu(wall_s: float, cpu_s: float, expected_s: float) -> None:
    assert pause_after(wall_s, cpu_s) == pytest.approx(expected_s)
