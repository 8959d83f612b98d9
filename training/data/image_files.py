"""The images of a data set's folders: which files there are, their contents' hashes, and which can be decoded.

The layouts that are read are those of `training.data.layout`.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from serving.image.decode import OWN_IMAGE_LIMITS, Limits, Reason, decode
from serving.image.folders import Skipped, describe_skipped, find_files, printable
from serving.system.cpus import available_cpus
from training.console import progress, say
from training.data.images import ImageSet, LabelledImage, or_reason
from training.data.layout import find_layout


def read_images(
    data: Path,
    *,
    limits: Limits = OWN_IMAGE_LIMITS,
    targets: Collection[Path] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Find the images below a folder and hash their contents.

    Args:
        targets: folders that the command writes: they hold no images. Absolute paths.
        on_progress: called with (files hashed, files in all).

    Raises:
        DataError: for a folder of another layout.
    """
    layout = find_layout(data, targets)
    train, unread = list_images(layout.train, limits)
    valid, unread_valid = list_images(layout.valid or {}, limits)
    images, unreadable = hash_images(train + valid, on_progress)
    skipped = [*layout.skipped, *unread, *unread_valid, *unreadable]
    of_valid = {image.path for image in valid}
    train, valid = ([image for image in images if (image.path in of_valid) == chosen] for chosen in (False, True))
    return ImageSet(layout.classes, train, None if layout.valid is None else valid, skipped, layout.notes)


def list_images(
    folders: dict[str, list[Path]], limits: Limits = OWN_IMAGE_LIMITS
) -> tuple[list[LabelledImage], list[Skipped]]:
    """The files of each class, sorted by path within a folder, not yet hashed; and what is left out.

    Args:
        folders: by class; a class's number is its place.
    """
    images, skipped = [], []
    others = [folder for of_class in folders.values() for folder in of_class]
    for label, of_class in enumerate(folders.values()):
        for folder in of_class:
            found = find_files(folder, others)
            images += [LabelledImage(path, label, limits=limits) for path in found.files]
            skipped += found.skipped
    return images, skipped


def hash_images(
    images: list[LabelledImage], on_progress: Callable[[int, int], None] | None
) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images with the SHA-256 of their contents, and the files that cannot be read or are too large."""

    def with_hash(image: LabelledImage) -> LabelledImage | Skipped:
        if (name := printable(str(image.path))) != str(image.path):
            return Skipped(Path(name), "its name is not UTF-8; rename it")
        try:
            if (size := image.path.stat().st_size) > image.limits.max_bytes:
                return Skipped(
                    image.path,
                    f"{Reason.TOO_LARGE}: the file has {size / 2**20:,.0f} MiB; at most "
                    f"{image.limits.max_bytes / 2**20:,.0f} are allowed (--max-image-mib)",
                )
            with image.path.open("rb") as file:
                return replace(image, sha256=hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            return Skipped(image.path, f"cannot be read: {error.strerror}")

    return _checked(images, with_hash, on_progress)


def decodable(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[Skipped]]:
    """The images that can be decoded, in order, and the others with the reason."""

    def decoded(image: LabelledImage) -> LabelledImage | Skipped:
        size = or_reason(lambda: decode(image.read(), min_side=1, limits=image.limits).size)
        return Skipped(image.path, size) if isinstance(size, str) else image

    with progress("decoding images") as on_progress:
        return _checked(images, decoded, on_progress)


def _checked(
    images: Sequence[LabelledImage],
    check: Callable[[LabelledImage], LabelledImage | Skipped],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[list[LabelledImage], list[Skipped]]:
    """What a check of each image, in threads, returns in order: images, and what is left out."""
    results = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for result in pool.map(check, images):
            results.append(result)
            if on_progress:
                on_progress(len(results), len(images))
    kept = [each for each in results if isinstance(each, LabelledImage)]
    return kept, [each for each in results if isinstance(each, Skipped)]


def say_skipped(skipped: Sequence[Skipped]) -> None:
    """Report how many files and folders are left out, the first of them with the reason."""
    for line in describe_skipped(skipped):
        say(line)
