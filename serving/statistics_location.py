"""What the command line and the environment say in; the URL of the statistics' database out."""

import os
from pathlib import Path

MAX_BYTES = 8192


def find_statistics(given: str | None) -> str:
    """The database's URL, or path; empty if none is named.

    Args:
        given: as --statistics names it. Without it, $PAWSERVE_STATISTICS; and without that, what the file holds that
            $PAWSERVE_STATISTICS_FILE names, as secrets are given to containers.

    Raises:
        ValueError: if that file cannot be read, or does not hold one URL.
    """
    if url := given or os.environ.get("PAWSERVE_STATISTICS"):
        return url
    path = os.environ.get("PAWSERVE_STATISTICS_FILE")
    if not path:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"PAWSERVE_STATISTICS_FILE names {path}, which cannot be read: {reason}") from error
    if len(text.split()) != 1:  # what it does hold is a secret, and is not said
        raise ValueError(f"PAWSERVE_STATISTICS_FILE names {path}, which must hold one URL and nothing else")
    return text
