"""Downloads the Oxford-IIIT Pet images (Parkhi et al. 2012) with torchvision, laid out as `fit` reads them."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torchvision

from serving.system.files import filling

PARTS = {"trainval": "train", "test": "valid"}


def fetch_pets(out: Path, *, breeds: bool) -> int:
    """Download, check (torchvision verifies the archives' MD5) and lay out the images.

    Args:
        out: folder to write; it must not exist, or be empty.
        breeds: 37 classes, one for each breed, instead of `cats` and `dogs`.

    Returns:
        The number of images.

    Raises:
        ValueError: if `out` is not empty.
        RuntimeError: if the download fails; nothing is left then.
    """
    target = "category" if breeds else "binary-category"
    count = 0
    with filling(out) as folder:
        for split, part in PARTS.items():
            try:
                pets = torchvision.datasets.OxfordIIITPet(
                    str(folder / "download"), split=split, target_types=target, download=True
                )
            except (OSError, RuntimeError) as error:
                raise RuntimeError(
                    f"the images could not be downloaded ({error}). On a machine with a network, run this command and "
                    "copy the folder here; or draw a data set with python -m training sample"
                ) from error
            names = pets.classes if breeds else ["cats", "dogs"]
            labels: Iterable[int] = pets._labels if breeds else pets._bin_labels
            for path, label in zip(pets._images, labels, strict=True):
                place = folder / part / names[label].lower().replace(" ", "_")
                place.mkdir(parents=True, exist_ok=True)
                shutil.move(path, place / Path(path).name)
                count += 1
        shutil.rmtree(folder / "download")
    return count
