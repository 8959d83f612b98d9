"""If a process may open few files, connections are limited to those that fit, and a warning says so."""

import subprocess
import sys

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

SHOWS = """
import logging, resource, sys
from serving.settings import ConnectionLimits
logging.basicConfig(format="%(message)s", stream=sys.stdout)
soft, hard = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(ConnectionLimits(max_connections=int(sys.argv[3])).fit_open_files().max_connections)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fits", "limit"),
    [
        (1024, 1024, 768, 768, 1024),  # the limit suffices
        (512, 1024, 768, 768, 1024),  # raising the limit suffices
        (512, 2048, 768, 768, 1024),  # it is raised no further than needed
        (256, 1024, 10_000, 768, 1024),
        (64, 128, 10_000, 64, 128),
    ],
)
def test_the_limit_is_raised_and_connections_fit_into_it(
    soft: int, hard: int, wanted: int, fits: int, limit: int
) -> None:
    command = [sys.executable, "-c", SHOWS, str(soft), str(hard), str(wanted)]
    shown = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT_S
    ).stdout.splitlines()
    assert shown[-2:] == [str(fits), str(limit)]
    warnings = shown[:-2]
    if fits == wanted:
        assert warnings == []
    else:
        [warning] = warnings
        assert warning.startswith(
            f"at most {limit:,} files may be open at once, so connections are limited to {fits:,}"
        )
        assert f"allow {wanted + 256:,} with `ulimit -n`" in warning
