"""Finding images and classes, and holding images out for validation."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serving.image.decode import OWN_IMAGE_LIMITS
from serving.image.folders import Skipped
from tests.support.image_folders import read, write
from training.data.image_files import read_images
from training.data.layout import DataError


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


def test_halves_of_the_training_images_are_each_trained_and_measured_on_once(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(20):
            write(tmp_path, f"train/{name}/{number}.jpg", f"{name}{number // 2}".encode())  # each image twice
            write(tmp_path, f"valid/{name}/{number}.jpg")
    split = read(tmp_path)
    one, other = split.halves(0)
    assert (one.train, one.valid) == (other.valid, other.train)
    assert sorted(image.path for image in one.train + one.valid) == sorted(image.path for image in split.train)
    assert one.shared() == []
    assert [image.label for image in one.train].count(0) == len(one.train) // 2 == 10
    assert split.halves(0) == (one, other)
    assert split.halves(1)[0].train != one.train


def test_the_same_image_in_train_and_valid_is_found(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        write(tmp_path, f"{side}/cats/{side}.jpg")
        write(tmp_path, f"{side}/dogs/{side}.jpg")
    write(tmp_path, "train/cats/a.jpg", b"same")
    write(tmp_path, "valid/cats/b.jpg", b"same")
    assert [(t.path.name, v.path.name) for t, v in read(tmp_path).shared()] == [("a.jpg", "b.jpg")]


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
        ([], "holds no images; the layouts that are read"),
        (["cats/1.jpg", "cats/2.jpg"], "one class"),
        (
            ["1.jpg", "2.jpg"],
            r"2 files and no folders; the layouts that are read: a folder for each class \(CLASS/\*\)",
        ),
        (
            ["cats/1.jpg", "cats/2.jpg", "dogs/.hidden"],
            r"too few readable images.*: dogs \(0\); each needs at least two",
        ),
        (["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"], r"too few readable images.*: dogs \(1\); each needs at least two"),
        (
            ["train/cats/1.jpg", "train/dogs/1.jpg", "valid/cats/1.jpg", "valid/dogs/.hidden"],
            "no readable image in the valid part: dogs; each needs at least one",
        ),
        (["valid/cats/1.jpg", "valid/dogs/1.jpg"], "folder valid but no folder train"),
        (["Train/1.jpg", "Val/2.jpg"], "names of splits, not of classes, and they hold no folders of classes"),
        (
            ["one/cats/1.jpg", "one/dogs/1.jpg", "two/cats/1.jpg", "two/dogs/2.jpg"],
            "hold the same folders .cats, dogs.",
        ),
        (["cats/train/1.jpg", "cats/val/2.jpg", "dogs/train/3.jpg", "dogs/val/4.jpg"], "hold the splits train, val"),
        (["pets/train/cats/1.jpg", "pets/valid/cats/1.jpg"], "only the folder pets, which holds train, valid: give"),
        (["train/cats/1.jpg", "fold2/cats/2.jpg"], "fold2 with the same classes: name the one"),
        (["train/steam/1.jpg", "train/diesel/2.jpg", "cars/3.jpg", "ships/4.jpg"], "cars, ships, which hold files"),
        (["train1/a/1.jpg", "train2/a/2.jpg", "val/a/3.jpg"], "2 folders for one split: train1, train2"),
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


def test_what_pawserve_wrote_is_not_data(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(3):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    for file in ("run.json", "recipe.yaml", "plots/losses.png"):
        write(tmp_path, f"runs/first/{file}")
    write(tmp_path, "models/pets/1/model.json")
    write(tmp_path, "models/pets/1/model.fp32.onnx")
    write(tmp_path, "packed/shards.json")
    write(tmp_path, "later/.pets.partial/checkpoint")
    images = read_images(tmp_path, targets=[tmp_path / "later/pets"])
    assert images.classes == ("cats", "dogs")
    assert {each.path.name: each.reason for each in images.skipped} == {
        "runs": "holds a run that fit wrote",
        "models": "holds a bundle that export wrote",
        "packed": "holds shards",
        "later": "the folder that this command writes",
    }
    with pytest.raises(DataError, match="runs/first holds a run that fit wrote, not images"):
        read_images(tmp_path / "runs/first")


def test_links_are_followed_once_and_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("cats", "dogs"):
        for number in range(2):
            write(data, f"{name}/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, "elsewhere/2.jpg")
    write(tmp_path, "elsewhere/deeper/3.jpg")
    (data / "cats/linked").symlink_to(tmp_path / "elsewhere")
    (data / "cats/again").symlink_to(tmp_path / "elsewhere/deeper")
    (data / "cats/loop").symlink_to(data)
    (data / "cats/of dogs").symlink_to("../dogs")
    (data / "cats/file.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (data / "dogs/gone.jpg").symlink_to("nowhere.jpg")
    (data / "dogs/itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(data / "dogs/pipe")
    images = read_images(data)
    assert sorted(str(each.path.relative_to(data)) for each in images.train if each.label == 0) == [
        "cats/0.jpg",
        "cats/1.jpg",
        "cats/again/3.jpg",
        "cats/file.jpg",
        "cats/linked/2.jpg",
    ]
    assert {str(each.path.relative_to(data)): each.reason for each in images.skipped} == {
        "cats/linked/deeper": "a folder that is read already, under another name",
        "cats/loop": "a link to a folder that contains it",
        "cats/of dogs": "a folder that is read already, under another name",
        "dogs/gone.jpg": "a link to nowhere.jpg, which does not exist",
        "dogs/itself.jpg": "cannot be read: Too many levels of symbolic links",
        "dogs/pipe": "neither a file nor a folder",
    }


def test_what_nas_and_desktop_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(2):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    for file in ("@eaDir/cats/SYNOPHOTO_THUMB.jpg", "cats/@eaDir/0.jpg/THUMB.jpg", "__MACOSX/cats/._0.jpg"):
        write(tmp_path, file)
    for file in ("._0.jpg", "Thumbs.db", ".thumbnails/0.png", "desktop.ini", "#recycle/3.jpg"):
        write(tmp_path, f"cats/{file}")
    images = read_images(tmp_path)
    assert images.classes == ("cats", "dogs")
    assert (len(images.train), images.skipped) == (4, [])


def test_no_unreadable_image_is_held_out(tmp_path: Path) -> None:
    for name, count in (("cats", 10), ("dogs", 5)):
        for number in range(count):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    images = read_images(tmp_path)
    drawn = next(image for image in images.split(valid_fraction=0.2, seed=0).valid if image.label == 1)
    split = images.split(valid_fraction=0.2, seed=0, unreadable=[Skipped(drawn.path, "NOT_AN_IMAGE: no")])
    assert [sum(image.label == 1 for image in part) for part in (split.train, split.valid)] == [3, 1]
    dogs = [Skipped(image.path, "UNSUPPORTED: HEIC") for image in images.train if image.label == 1]
    with pytest.raises(DataError, match=r"dogs \(1\); each needs at least two(?s:.*)left out: 4 files.*\n  .*HEIC"):
        images.split(valid_fraction=0.2, seed=0, unreadable=dogs[:4])


def test_an_image_in_two_classes_is_found(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for number in range(2):
            write(tmp_path, f"{name}/{number}.jpg", f"{name} {number}".encode())
    write(tmp_path, "cats/a.jpg", b"same")
    write(tmp_path, "dogs/b.jpg", b"same")
    write(tmp_path, "dogs/copy.jpg", b"dogs 0")
    pairs = read(tmp_path).contradictory()
    assert [{one.path.name, other.path.name} for one, other in pairs] == [{"a.jpg", "b.jpg"}]


def test_a_file_that_is_too_large_is_left_out_before_it_is_read(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        write(tmp_path, f"{name}/0.jpg", name.encode())
    with (tmp_path / "cats/film.mp4").open("wb") as film:
        film.truncate(257 * 2**20)
    (skipped,) = read_images(tmp_path).skipped
    assert skipped.reason == "TOO_LARGE: the file has 257 MiB; at most 256 are allowed (--max-image-mib)"
    assert read_images(tmp_path, limits=replace(OWN_IMAGE_LIMITS, max_bytes=2**30)).skipped == []
