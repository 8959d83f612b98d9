"""Builds the manifests that a cluster would get from kustomizations of deploy/kubernetes, or from overlays on them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

KUBERNETES = ROOT / "deploy/kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """The manifests that `kubectl apply -k` sends."""
    built = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return [manifest for manifest in yaml.safe_load_all(built.stdout) if manifest]


def load(path: Path) -> list[Manifest]:
    """The manifests that `kubectl apply -f` sends."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def one(manifests: list[Manifest], kind: str, name: str = "pawserve") -> Manifest:
    """The manifest with this kind and name."""
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found
