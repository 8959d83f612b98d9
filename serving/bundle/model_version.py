"""Names of models and their versions: the only parsers and formatters of them.

The API writes models/NAME and models/NAME/versions/VERSION, the command line NAME and NAME/VERSION. A name becomes a
folder's name; versions count from 1.
"""

import re
from dataclasses import dataclass

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")
"""At most 18 digits: a version fits in the 64-bit integers of databases."""

_RESOURCE = re.compile(rf"models/({NAME_PATTERN.pattern})(?:/versions/({VERSION_PATTERN.pattern}))?")
_SHORT = re.compile(rf"({NAME_PATTERN.pattern})(?:/({VERSION_PATTERN.pattern}))?")


@dataclass(frozen=True, order=True, slots=True)
class ModelVersion:
    """One version of a model; ordered by name, then by version number."""

    name: str
    version: int

    @property
    def resource(self) -> str:
        """The name in the API: models/NAME/versions/VERSION."""
        return resource_name(self.name, self.version)

    def matches(self, name: str | None, version: int | None) -> bool:
        """Whether this is the model `name` and the version `version`; None stands for any."""
        return name in (None, self.name) and version in (None, self.version)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def resource_name(name: str, version: int | str | None = None) -> str:
    """models/NAME/versions/VERSION, or models/NAME without a version."""
    return f"models/{name}/versions/{version}" if version else f"models/{name}"


def parse_resource(resource: str) -> tuple[str, int | None]:
    """Parse a resource name.

    Returns:
        Name and version; the version is None for models/NAME.

    Raises:
        ValueError: if it is neither models/NAME nor models/NAME/versions/VERSION.
    """
    return _parse(_RESOURCE, resource, "models/NAME or models/NAME/versions/VERSION")


def parse_short_name(text: str) -> tuple[str, int | None]:
    """Parse NAME or NAME/VERSION.

    Returns:
        Name and version; the version is None for NAME.

    Raises:
        ValueError: if it is neither.
    """
    return _parse(_SHORT, text, "NAME or NAME/VERSION")


def check_name(name: str) -> None:
    """Check a model's name.

    Raises:
        ValueError: if it is no plain name.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(
            f"name is {name!r}; 1 to 63 of a-z, 0-9, '.', '_' and '-' are allowed, the first and the last a letter or "
            "digit"
        )


def _parse(pattern: re.Pattern[str], text: str, allowed: str) -> tuple[str, int | None]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:100]!r} is not a model name; write {allowed}")
    name, version = match[1], match[3]
    return name, int(version) if version else None
