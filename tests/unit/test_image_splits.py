"""Which folders are the splits and the classes of a data set."""

import os
from pathlib import Path

import pytest

from tests.support.image_folders import read, write
from training.data.image_files import read_images
from training.data.layout import DataError, evaluation_folders, listed


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ("Train", "Val"),
        ("TRAINING", "VALIDATION"),
        ("train2017", "val2017"),
        ("training_set", "dev_set"),
        ("imagenet-train", "imagenet-eval"),
        ("trainImages", "validImages"),
        ("trainset", "valset"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/images", "valid/images"),
        ("trainval", "test"),
    ],
)
def test_splits_are_known_by_the_names_that_public_data_sets_use(tmp_path: Path, train: str, valid: str) -> None:
    for side, count in ((train, 3), (valid, 2)):
        for name in ("cats", "dogs"):
            for number in range(count):
                write(tmp_path, f"{side}/{name}/{number}.jpg", f"{side} {name} {number}".encode())
    split = read(tmp_path)
    assert split.classes == ("cats", "dogs")
    assert {image.path.relative_to(tmp_path / train).parts[0] for image in split.train} == {"cats", "dogs"}
    assert (len(split.train), len(split.valid)) == (6, 4)


def test_a_class_of_trains_stays_a_class(tmp_path: Path) -> None:
    for name in ("bus", "train", "test tubes"):
        for number in range(3):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    assert read(tmp_path).classes == ("bus", "test tubes", "train")


def test_folders_beside_the_splits_are_left_out_with_the_reason(tmp_path: Path) -> None:
    for side in ("train", "valid", "test"):
        for name in ("cats", "dogs"):
            write(tmp_path, f"{side}/{name}/0.jpg", f"{side} {name}".encode())
    write(tmp_path, "Test_unlabeled/0.jpg")
    write(tmp_path, "extra/cats/0.jpg", b"extra")
    write(tmp_path, "train/loose.jpg")
    write(tmp_path, "README")
    images = read_images(tmp_path)
    assert len(images.train) == len(images.valid or ()) == 2
    assert {str(each.path.relative_to(tmp_path)): each.reason for each in images.skipped} == {
        "test": "a test folder; evaluate a run on it with python -m training evaluate",
        "Test_unlabeled": "a test folder without classes, which cannot be trained or validated on",
        "extra": "lies beside the splits; it is neither training nor validation",
        "train/loose.jpg": "lies beside the folders of classes, so it has no class",
        "README": "lies beside the splits",
    }


def test_a_part_of_train_is_held_out_if_there_is_only_an_unlabelled_test_folder(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(10):
            write(tmp_path, f"train/{name}/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, "test/0.jpg")
    images = read_images(tmp_path)
    split = images.split(valid_fraction=0.2, seed=0)
    assert (len(split.train), len(split.valid)) == (16, 4)
    assert images.notes == (f"there is no folder valid: a part of each class in {tmp_path}/train is held out",)


def test_two_spellings_of_one_class_name_are_one_class(tmp_path: Path) -> None:
    for side, name in (("train", "caf\u00e9"), ("valid", "cafe\u0301"), ("train", "tea"), ("valid", "tea")):
        write(tmp_path, f"{side}/{name}/0.jpg", f"{side} {name}".encode())
    write(tmp_path, "train/cafe\u0301/1.jpg", b"another")
    split = read(tmp_path)
    assert split.classes == ("caf\u00e9", "tea")
    assert [image.label for image in split.train] == [0, 0, 1]


def test_class_names_that_are_not_utf_8_are_rejected_and_such_images_left_out(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(3):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, os.fsdecode(b"cats/caf\xe9.jpg"))
    images = read_images(tmp_path)
    assert len(images.train) == 6
    assert [(str(file.path), file.reason) for file in images.skipped] == [
        (f"{tmp_path}/cats/caf\\xe9.jpg", "its name is not UTF-8; rename it")
    ]
    (tmp_path / "dogs").rename(tmp_path / os.fsdecode(b"fen\xeatre"))
    with pytest.raises(DataError, match=r"the folder fen\\xeatre in .* is not UTF-8; rename it"):
        read(tmp_path)


@pytest.mark.parametrize("split", ["valid", "Test_set"])
def test_a_split_without_a_training_split_can_be_evaluated(tmp_path: Path, split: str) -> None:
    for folder in (f"{split}/cats", f"{split}/dogs", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    folders, left_out = evaluation_folders(tmp_path, ("cats", "dogs"))
    assert folders == {name: [tmp_path / split / name] for name in ("cats", "dogs")}
    assert [each.path for each in left_out] == [tmp_path / "notes"]


def test_names_with_a_comma_are_quoted_in_lists() -> None:
    assert listed(["it's", "cats, small", "b"]) == "b, 'cats, small', it's"
