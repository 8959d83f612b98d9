"""OpenVINO in a process of its own: its crashes."""

import sys

import numpy as np
import pytest

from export.checks.openvino_process import ProcessFailed, run_openvino


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process ended with signal 11"),
        ("raise RuntimeError('no such operator')", "exit code 1: RuntimeError: no such operator"),
    ],
)
def test_a_crash_of_openvino_is_reported(program: str, reason: str) -> None:
    images_NHWC = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ProcessFailed, match=reason):
        run_openvino(b"", images_NHWC, lambda done, total: None, (sys.executable, "-c", program))
