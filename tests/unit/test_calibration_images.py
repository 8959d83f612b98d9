"""The images of a folder that INT8 is calibrated on."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from export.calibrate import list_folder
from tests.support.images import encoded

RED = encoded(Image.new("RGB", (40, 30), "red"), "JPEG")


def write(path: Path, content: bytes = RED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_cannot_be_used_is_left_out_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"):
        write(tmp_path / name)
    write(tmp_path / "dogs" / "broken.jpg", RED[:-40])
    write(tmp_path / "dogs" / "@eaDir" / "thumb.jpg")
    write(tmp_path / "loose.jpg")
    write(tmp_path / "cats" / "notes.txt", b"text")
    (tmp_path / "cats" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    images = list_folder(tmp_path)
    assert [(image.path.parent.name, image.label) for image in images] == [("cats", 0), ("cats", 0), ("dogs", 1)]
    assert all(len(image.sha256) == 32 for image in images)
    told = capsys.readouterr().err
    for name in ("broken.jpg", "loose.jpg", "gone.jpg", "notes.txt"):
        assert name in told
    assert "TRUNCATED" in told


def test_two_spellings_of_a_class_are_one(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / unicodedata.normalize(form, "bébé") / f"{form}.jpg")
    write(tmp_path / "chat" / "1.jpg")
    assert sorted(image.label for image in list_folder(tmp_path)) == [0, 0, 1]


def test_a_folder_without_subfolders_is_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.jpg")
    assert [image.label for image in list_folder(tmp_path)] == [0, 0, 0]
    assert "beside" not in capsys.readouterr().err
