"""The sample data set: reproducible, written whole, and with classes that only differ in shape."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.samples.drawing import draw
from training.samples.sample import write_sample


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 training and 2 validation images of each class."""
    out = tmp_path_factory.mktemp("sample") / "photos"
    write_sample(out, per_class=6, valid_per_class=2)
    return out


def test_a_sample_has_the_layout_of_an_image_folder(sample: Path) -> None:
    assert set(hashes(sample)) == {
        f"{part}/{kind}s/{kind}.{number:04}.jpg"
        for kind in ("cat", "dog")
        for part, numbers in (("valid", (1, 2)), ("train", range(3, 9)))
        for number in numbers
    }


def test_every_image_is_an_rgb_jpeg_of_moderate_size(sample: Path) -> None:
    sizes = set()
    for path in sample.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert min(image.size) >= 240
            assert max(image.size) <= 640
            sizes.add(image.size)
    assert len(sizes) > 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_none_of_them(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        write_sample(tmp_path / name, per_class=1, valid_per_class=1, seed=seed)

    first = hashes(tmp_path / "first")
    assert hashes(tmp_path / "second") == first
    assert not set(hashes(tmp_path / "other").values()) & set(first.values())


def test_a_larger_sample_keeps_the_drawings_of_a_smaller_one(tmp_path: Path) -> None:
    write_sample(tmp_path / "small", per_class=1, valid_per_class=1)
    write_sample(tmp_path / "large", per_class=2, valid_per_class=1)

    assert hashes(tmp_path / "small").items() <= hashes(tmp_path / "large").items()


def test_no_two_images_are_the_same(sample: Path) -> None:
    assert len(set(hashes(sample).values())) == 2 * (6 + 2)


@pytest.mark.slow
def test_size_colour_and_file_size_do_not_tell_cats_from_dogs(tmp_path: Path) -> None:
    sample = tmp_path / "photos"
    write_sample(sample, per_class=30, valid_per_class=4)
    features, kinds = [], []
    for path in sorted(sample.rglob("*.jpg")):
        with Image.open(path) as image:
            features.append([*image.size, *np.asarray(image).mean(axis=(0, 1)), path.stat().st_size])
        kinds.append(path.parent.name)
    model = make_pipeline(StandardScaler(), LogisticRegression())

    accuracy = cross_val_score(model, np.array(features), np.array(kinds), cv=5).mean()

    assert accuracy < 0.7  # 68 images: chance stays below this 99.9 % of the time


def test_the_kind_changes_the_drawing_and_not_its_size() -> None:
    cat, dog = (draw(kind, np.random.default_rng(5)) for kind in ("cat", "dog"))

    assert cat.size == dog.size
    assert np.asarray(cat).tobytes() != np.asarray(dog).tobytes()


def test_an_empty_folder_is_filled_and_progress_counts_every_image(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    seen: list[tuple[int, int]] = []

    write_sample(tmp_path / "photos", per_class=1, valid_per_class=1, on_progress=lambda *news: seen.append(news))

    assert len(hashes(tmp_path / "photos")) == 4
    assert seen == [(done, 4) for done in range(1, 5)]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"per_class": 0}, "per_class is 0, but must be 1 or more"),
        ({"valid_per_class": -2}, "valid_per_class is -2, but must be 1 or more"),
        ({"seed": -1}, "seed is -1, but must be 0 or more"),
    ],
)
def test_numbers_that_are_too_small_are_rejected_and_leave_nothing(
    tmp_path: Path, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_sample(tmp_path / "deep" / "photos", **numbers)  # type: ignore[arg-type]

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_rejected_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")

    with pytest.raises(ValueError, match="is there already: give a new or an empty folder"):
        write_sample(tmp_path, per_class=1, valid_per_class=1)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_file_in_place_of_the_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "photos").write_bytes(b"mine")

    with pytest.raises(ValueError, match="is there already: give a new or an empty folder"):
        write_sample(tmp_path / "photos", per_class=1, valid_per_class=1)

    assert (tmp_path / "photos").read_bytes() == b"mine"


def test_a_sample_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert not (tmp_path / "photos").exists()
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "photos", per_class=2, valid_per_class=1, on_progress=interrupt)

    assert list(tmp_path.iterdir()) == []
