"""The check for mistyped environment variables."""

import os
from collections.abc import Mapping
from difflib import get_close_matches

from serving.cli.errors import UsageError

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
"""All variables that are read, without PREFIX."""
MIN_SIMILARITY = 0.82
"""Ratio of difflib from which a name counts as mistyped. Other names are allowed, since Kubernetes sets variables such
as PAWSERVE_SERVICE_HOST for a service of that name."""


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse variables whose names are nearly known ones: a server would start without its database, for example.

    Raises:
        UsageError: if there is one; the message has the name that was probably meant.
    """
    for name in sorted(environment):
        given = name.removeprefix(PREFIX)
        if given == name or given in KNOWN:
            continue
        if meant := get_close_matches(given, KNOWN, n=1, cutoff=MIN_SIMILARITY):
            raise UsageError(
                f"the environment variable {name} is unknown; did you mean {PREFIX}{meant[0]}? Otherwise unset {name}"
            )
