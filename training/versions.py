"""Versions of the libraries that determine the content of a run or a bundle."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("pawserve", "torch", "timm", "numpy", "onnx", "onnxruntime", "Pillow", "simplejpeg", "cykooz-resizer")


def versions() -> dict[str, str]:
    """Package name -> version, Python included; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
