"""A model folder that cannot be read is reported in one message."""

from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    unreadable = tmp_path / ("n" * 300)  # no file system allows such a name; permissions do not stop root
    with pytest.raises(BundleError, match="cannot be read: File name too long"):
        find_bundles(unreadable, [])
