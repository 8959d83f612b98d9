"""What the commands that make a data set do: shard, sample and fetch-pets."""

from training.cli.data_options import FetchPets, Sample, Shard
from training.console import progress, say
from training.data.dark import say_dark
from training.data.image_files import say_skipped
from training.data.shard_writer import write_shards
from training.samples.sample import write_sample


def shard(options: Shard) -> None:
    """Write shards and report what is in them."""
    split, skipped, count = write_shards(
        options.data,
        options.out,
        shard_bytes=options.shard_mb * 10**6,
        valid_fraction=options.valid_fraction,
        seed=options.seed,
        url=options.url,
        limits=options.size.limits(),
    )
    say_skipped(skipped)
    say_dark(split)
    say(
        f"{len(split.train):,} training images and {len(split.valid):,} validation images of {len(split.classes):,} "
        f"classes, in {count:,} shards in {options.out}"
    )


def sample(options: Sample) -> None:
    """Draw the sample data set."""
    with progress("drawing") as on_progress:
        write_sample(
            options.out,
            per_class=options.per_class,
            valid_per_class=options.valid_per_class,
            seed=options.seed,
            on_progress=on_progress,
        )
    say(f"drew {2 * (options.per_class + options.valid_per_class):,} cats and dogs in {options.out}")


def fetch_pets(options: FetchPets) -> None:
    """Download the Oxford-IIIT Pet images."""
    from training.data.pets import fetch_pets  # loads torch, which the other commands here do without

    count = fetch_pets(options.out, breeds=options.breeds)
    say(f"wrote {count:,} images to {options.out}")
