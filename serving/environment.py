"""The environment in; a refusal of variables that are meant for pawserve, but that nothing reads, out."""

import os
from collections.abc import Mapping
from difflib import get_close_matches

PREFIX = "PAWSERVE_"
KNOWN = (
    "ENGINES",
    "PHOTOS",
    "SERVER",
    "STATISTICS",
    "STATISTICS_FILE",
    "TLS_CA",
    "TLS_CERT",
    "TLS_KEY",
    "TOKEN",
    "TOKEN_FILE",
)
"""What is read, without PREFIX."""
ALIKE = 0.82
"""As difflib counts it. Others are left alone, since Kubernetes makes some of its own for a service of that name, such
as PAWSERVE_SERVICE_HOST."""


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a variable whose name is nearly one that is read: a server without its database would start as well.

    Raises:
        ValueError: naming both.
    """
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given == name or given in KNOWN:
            continue
        if meant := get_close_matches(given, KNOWN, n=1, cutoff=ALIKE):
            raise ValueError(f"nothing reads the environment's {name}; did you mean {PREFIX}{meant[0]}? Else unset it")
