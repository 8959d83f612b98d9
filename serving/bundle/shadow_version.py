"""Shadow versions: versions that also classify a share of a model's images, without answering requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.bundle.model_version import ModelVersion, parse_short_name


@dataclass(frozen=True, slots=True)
class ShadowVersion:
    """A version that also classifies images which the primary version has answered.

    Raises:
        ValueError: if the share is not allowed.
    """

    version: ModelVersion
    share: float = 1.0
    """Share of the requests, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of {self.version} is {self.share:g}; it must be above 0 and at most 1")

    def __str__(self) -> str:
        return f"{self.version}={self.share:g}"


def parse_shadow(text: str) -> ShadowVersion:
    """Parse NAME/VERSION or NAME/VERSION=SHARE.

    Raises:
        ValueError: if it is neither, or the share is not allowed.
    """
    model, separator, share = text.partition("=")
    try:
        name, number = parse_short_name(model)
    except ValueError:
        number = None
    if number is None:
        raise ValueError(f"{text[:100]!r} is not a shadow version; write NAME/VERSION or NAME/VERSION=SHARE")
    try:
        return ShadowVersion(ModelVersion(name, number), float(share) if separator else 1.0)
    except ValueError as error:
        raise ValueError(
            f"{text[:100]!r} is not a shadow version: its share must be a number above 0 and at most 1, such as "
            f"{model}=0.5"
        ) from error


def check_shadows(shadows: Sequence[ShadowVersion], wanted: Sequence[str]) -> None:
    """Check shadow versions against each other and against the models to serve.

    Args:
        shadows: the shadow versions.
        wanted: "NAME" or "NAME/VERSION" of the models that are served; empty for all.

    Raises:
        ValueError: if two are of one name, one is also to be served itself, or its name is not served.
    """
    by_name: dict[str, ShadowVersion] = {}
    for shadow in shadows:
        version = shadow.version
        if other := by_name.get(version.name):
            raise ValueError(
                f"--shadow {other.version} and --shadow {version} are of one model; a model has at most one shadow "
                "version: leave one of them out"
            )
        by_name[version.name] = shadow
        if str(version) in wanted:
            raise ValueError(
                f"--shadow {version} is the version that --model {version} serves, and a version is no shadow of "
                "itself; name another version, or leave one of them out"
            )
        if wanted and version.name not in {parse_short_name(each)[0] for each in wanted}:
            raise ValueError(
                f"--shadow {version} has no effect: --model names {', '.join(wanted)}, not {version.name}; add --model "
                f"{version.name}, or leave --shadow out"
            )
