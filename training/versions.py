"""Releases of the libraries whose code decides what a run or a bundle contains."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("pawserve", "torch", "timm", "numpy", "onnx", "onnxruntime", "Pillow", "simplejpeg", "cykooz-resizer")


def versions() -> dict[str, str]:
    """Package name -> release, Python's own included; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
