"""A model folder names its newest version, and one that cannot be read is reported in one message."""

from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles, open_newest
from serving.bundle.manifest import BundleError
from tests.support.bundles import write_bundle


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    unreadable = tmp_path / ("n" * 300)  # no file system allows such a name; permissions do not stop root
    with pytest.raises(BundleError, match="cannot be read: File name too long"):
        find_bundles(unreadable, [])


def test_a_model_s_folder_stands_for_its_newest_version(tmp_path: Path) -> None:
    for version in (2, 10):
        write_bundle(tmp_path, "pets", version)
    (tmp_path / "pets" / "notes").mkdir()
    assert open_newest(tmp_path / "pets").manifest.version == 10
    assert open_newest(tmp_path / "pets" / "2").manifest.version == 2
    with pytest.raises(BundleError, match=r"has no model\.json; a bundle is a folder models/NAME/VERSION"):
        open_newest(tmp_path)
