"""A folder of models that cannot be read is said as such; nobody sees a stack trace."""

from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError


def test_a_folder_that_the_system_does_not_let_us_read(tmp_path: Path) -> None:
    unreadable = tmp_path / ("n" * 300)  # no file system takes such a name, whoever asks; permissions do not stop root
    with pytest.raises(BundleError, match="cannot be read: File name too long"):
        find_bundles(unreadable, [])
