"""Finding images and classes, and holding images out for validation."""

import os
import shutil
from pathlib import Path

import pytest

from training.data.images import DataError, Split, read_split


def write(folder: Path, name: str, content: bytes = b"") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content or os.fsencode(name))


def read(folder: Path, *, fraction: float = 0.2, seed: int = 0) -> Split:
    return read_split(folder, valid_fraction=fraction, seed=seed)[0]


def test_train_and_valid_folders_are_used_unchanged(tmp_path: Path) -> None:
    for side, count in (("train", 3), ("valid", 2)):
        for name in ("dogs", "cats"):
            for number in range(count):
                write(tmp_path, f"{side}/{name}/{side}{number}.jpg", f"{side}{name}{number}".encode())
    split = read(tmp_path)
    assert split.classes == ("cats", "dogs")
    assert [image.path.parent.name for image in split.train] == ["cats"] * 3 + ["dogs"] * 3
    assert [image.label for image in split.valid] == [0, 0, 1, 1]


def test_one_folder_of_classes_is_split_by_class_and_reproducibly(tmp_path: Path) -> None:
    for name, count in (("cats", 50), ("dogs", 10), ("größere Hunde", 2)):
        for number in range(count):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    split = read(tmp_path)
    held_out = [sum(image.label == label for image in split.valid) for label in range(3)]
    assert held_out == [10, 2, 1]
    assert read(tmp_path) == split
    assert {image.path for image in read(tmp_path, seed=1).valid} != {image.path for image in split.valid}
    assert not {image.path for image in split.train} & {image.path for image in split.valid}


def test_the_split_does_not_depend_on_file_names_so_copies_stay_in_one_part(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(20):
            write(tmp_path, f"{name}/{number}.jpg", f"{name}{number}".encode())
            write(tmp_path, f"{name}/copy of {number}.jpg", f"{name}{number}".encode())
    split = read(tmp_path, fraction=0.4)
    assert len(split.valid) == 2 * 16
    assert split.shared() == []


def test_the_same_image_in_train_and_valid_is_found(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        write(tmp_path, f"{side}/cats/{side}.jpg")
        write(tmp_path, f"{side}/dogs/{side}.jpg")
    write(tmp_path, "train/cats/a.jpg", b"same")
    write(tmp_path, "valid/cats/b.jpg", b"same")
    assert [(t.path.name, v.path.name) for t, v in read(tmp_path).shared()] == [
        ("a.jpg", "b.jpg"),
        *[],
    ]


def test_hidden_files_are_left_out_and_subfolders_searched(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(2):
            write(tmp_path, f"{name}/{number}.jpg", f"{name}{number}".encode())
    write(tmp_path, "cats/.DS_Store")
    write(tmp_path, ".git/config")
    write(tmp_path, "cats/more/3.jpg")
    split = read(tmp_path)
    assert split.classes == ("cats", "dogs")
    assert len(split.train) + len(split.valid) == 5


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ([], "one class"),
        (["cats/1.jpg", "cats/2.jpg"], "one class"),
        (["cats/1.jpg", "cats/2.jpg", "dogs/.hidden"], "no readable image in the train part: dogs"),
        (["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"], "no readable image in the valid part: dogs"),
        (["train/cats/1.jpg", "train/dogs/1.jpg"], "no folder valid"),
        (
            ["train/cats/1.jpg", "train/dogs/1.jpg", "valid/cats/1.jpg", "valid/birds/1.jpg"],
            "only in train: dogs; only in valid: birds",
        ),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_rejected_with_the_reason(
    tmp_path: Path, files: list[str], complaint: str
) -> None:
    for number, name in enumerate(files):
        write(tmp_path, name, str(number).encode())
    with pytest.raises(DataError, match=complaint):
        read(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")


def test_the_fingerprint_follows_contents_and_not_names(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        for name in ("cats", "dogs"):
            write(tmp_path / "a", f"{side}/{name}/x.jpg", f"{side}{name}".encode())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.rename(tmp_path / "b/train/cats/x.jpg", tmp_path / "b/train/cats/y.jpg")
    assert read(tmp_path / "a").fingerprint() == read(tmp_path / "b").fingerprint()
    write(tmp_path / "b", "train/cats/y.jpg", b"another")
    assert read(tmp_path / "a").fingerprint() != read(tmp_path / "b").fingerprint()


def test_image_read_notices_a_changed_file(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        for name in ("cats", "dogs"):
            write(tmp_path, f"{side}/{name}/x.jpg", f"{side}{name}".encode())
    image = read(tmp_path).train[0]
    assert image.read() == b"traincats"
    image.path.write_bytes(b"other")
    with pytest.raises(DataError, match="has changed"):
        image.read()


def test_hidden_files_are_left_out_at_any_depth(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(3):
            write(tmp_path, f"{name}/deeper/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, "cats/.ipynb_checkpoints/0-checkpoint.jpg")
    write(tmp_path, "cats/deeper/.thumbnails/more/0.jpg")
    write(tmp_path, "dogs/.DS_Store")
    (tmp_path / "cats/loop").symlink_to(tmp_path)
    (tmp_path / "cats/itself.jpg").symlink_to("itself.jpg")
    split = read(tmp_path)
    assert sorted({image.path.name for image in split.train + split.valid}) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(split.train + split.valid) == 6


def test_parts_of_a_data_set_with_other_names_are_not_used_as_classes(tmp_path: Path) -> None:
    for side in ("Train", "Val"):
        for name in ("cats", "dogs"):
            write(tmp_path, f"{side}/{name}/0.jpg", f"{side} {name}".encode())
    with pytest.raises(
        DataError, match="the folders Train, Val, which are names of parts .* name them train and valid"
    ):
        read(tmp_path)
    (tmp_path / "Train").rename(tmp_path / "train")
    with pytest.raises(DataError, match="has a folder train but no folder valid.*There are Val, train"):
        read(tmp_path)


def test_class_names_that_are_not_utf_8_are_rejected_and_such_images_left_out(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(3):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, os.fsdecode(b"cats/caf\xe9.jpg"))
    split, skipped = read_split(tmp_path, valid_fraction=0.3, seed=0)
    assert len(split.train + split.valid) == 6
    assert [(str(file.path), file.reason) for file in skipped] == [
        (f"{tmp_path}/cats/caf\\xe9.jpg", "its name is not UTF-8; rename it")
    ]
    (tmp_path / "dogs").rename(tmp_path / os.fsdecode(b"fen\xeatre"))
    with pytest.raises(DataError, match=r"the folder fen\\xeatre in .* is not UTF-8; rename it"):
        read(tmp_path)
