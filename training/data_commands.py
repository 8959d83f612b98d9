"""The commands of `python -m training` that make a set of photos: shard, sample and fetch-pets."""

from dataclasses import dataclass
from pathlib import Path

from training.commands import UsageError
from training.option_help import MaybeText
from training.progress import progress, say


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Pack photos into WebDataset shards, for object storage and many processes."""

    data: Path
    """Photos: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation."""
    out: Path
    """Folder to write: train-*.tar, valid-*.tar and shards.json. It must not exist, or be empty."""
    shard_mb: int = 64
    """Size of a shard, in millions of bytes: 1 to 1000. Each process holds a few of them in memory."""
    url: MaybeText = None
    """Where the shards will be read from (https://… or http://…) where they are not beside shards.json."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Of what is held out and of the photos' order; the same seed and photos make the same bytes."""


def shard(options: Shard) -> None:
    """Write shards, and say what is in them."""
    from training.write_shards import write_shards

    if not 1 <= options.shard_mb <= 1000:
        raise UsageError(f"shard-mb is {options.shard_mb}; it must lie between 1 and 1000")
    if not 0.01 <= options.valid_fraction <= 0.9:
        raise UsageError(f"valid-fraction is {options.valid_fraction}; it must lie between 0.01 and 0.9")
    split, skipped, count = write_shards(
        options.data,
        options.out,
        shard_bytes=options.shard_mb * 10**6,
        valid_fraction=options.valid_fraction,
        seed=options.seed,
        url=options.url,
    )
    for file in skipped[:10]:
        say(f"left out {file.path}: {file.reason}")
    if len(skipped) > 10:
        say(f"and {len(skipped) - 10:,} more")
    say(
        f"{len(split.train):,} photos to train on and {len(split.valid):,} to validate on, of {len(split.classes):,} "
        f"classes, in {count:,} shards in {options.out}"
    )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw a small set of cats and dogs, so that everything runs with no download."""

    out: Path
    """Folder to write: train/cats, train/dogs, valid/cats and valid/dogs. It must not exist, or be empty."""
    per_class: int = 150
    """Drawings of each kind to train on."""
    valid_per_class: int = 50
    """Drawings of each kind to validate on."""
    seed: int = 0
    """The same seed draws the same pictures."""


def sample(options: Sample) -> None:
    """Draw photos."""
    from training.sample import write_sample

    with progress("drawing", "drawings") as on_progress:
        write_sample(
            options.out,
            per_class=options.per_class,
            valid_per_class=options.valid_per_class,
            seed=options.seed,
            on_progress=on_progress,
        )
    say(f"drew {2 * (options.per_class + options.valid_per_class):,} cats and dogs in {options.out}")


@dataclass(frozen=True, kw_only=True)
class FetchPets:
    """Download the Oxford-IIIT Pet photos: 7,400 cats and dogs, 800 MB."""

    out: Path
    """Folder to write: train and valid, each with cats and dogs, or with the 37 breeds."""
    breeds: bool = False
    """One class for each of the 37 breeds instead of cats and dogs."""


def fetch(options: FetchPets) -> None:
    """Download photos."""
    from training.pets import fetch_pets

    counts = fetch_pets(options.out, breeds=options.breeds)
    say(f"wrote {counts:,} photos to {options.out}")
