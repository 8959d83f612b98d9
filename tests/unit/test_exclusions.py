"""Lists of files to leave out or to relabel."""

from pathlib import Path
from typing import Any

import pytest

from training.data.exclusions import read_exclusions
from training.data.images import ImageSet, LabelledImage
from training.data.layout import DataError

DATA = Path("/data")
IMAGES = ImageSet(
    ("cats", "dogs"),
    [LabelledImage(DATA / f"train/cats/{at}.jpg", 0) for at in range(3)],
    [LabelledImage(DATA / f"valid/dogs/{at}.jpg", 1) for at in range(3)],
)


def listed(folder: Path, text: str) -> Path:
    path = folder / "suspects.csv"
    path.write_bytes(text.encode())
    return path


def applied(path: Path) -> tuple[ImageSet, dict[str, Any]]:
    exclusions = read_exclusions([path])
    return exclusions.apply(IMAGES, DATA), exclusions.record(IMAGES, DATA)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_images_are_left_out_or_relabelled(separator: str, mark: str, newline: str, tmp_path: Path) -> None:
    rows = [
        "path,label,corrected",
        "train/cats/0.jpg,cats,",
        "train/cats/1.jpg,cats,dogs",
        "valid/dogs/2.jpg,dogs,dogs",
    ]
    path = listed(tmp_path, mark + newline.join(rows).replace(",", separator) + newline)

    images, record = applied(path)

    assert [(image.path.name, image.label) for image in images.train] == [("1.jpg", 1), ("2.jpg", 0)]
    assert [(image.path.name, image.label) for image in images.valid or ()] == [
        ("0.jpg", 1),
        ("1.jpg", 1),
        ("2.jpg", 1),
    ]
    assert (record["excluded"], record["relabelled"]) == (1, 1)
    assert list(record["lists"]) == [str(path)]


def test_a_list_needs_no_column_of_corrections(tmp_path: Path) -> None:
    images, record = applied(listed(tmp_path, "path\nvalid/dogs/1.jpg\n"))
    assert len(images.valid or ()) == 2
    assert record["excluded"] == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,corrected\ntrain/cats/9.jpg,\n", "1 paths are not images of /data, such as train/cats/9.jpg"),
        ("path,corrected\ntrain/cats/0.jpg,horses\n", "classes that the data has not: horses"),
        ("file\ntrain/cats/0.jpg\n", "no column path"),
        ("path,corrected\ntrain/cats/0.jpg,\ntrain/cats/0.jpg,dogs\n", "two rows disagree about train/cats/0.jpg"),
    ],
)
def test_a_list_that_does_not_fit_the_data_is_rejected(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        applied(listed(tmp_path, text))


def test_a_list_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_exclusions([tmp_path / "missing.csv"])
    with pytest.raises(DataError, match="not UTF-8"):
        read_exclusions([_binary(tmp_path)])


def _binary(folder: Path) -> Path:
    path = folder / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    return path
