"""Builds a base image with debootstrap, and pawserve's images on it."""

import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.containers.storage import BUILD_S, Storage

BASE = "localhost/pawserve-base"
SUITE = "bookworm"
"""Debian 12: its Python is 3.11, as in the Dockerfile's default base."""
CA_CERTIFICATES = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Images:
    """The images that `build` and `build_demo` made."""

    storage: Storage
    cpu: str
    demo: str


def make_base(storage: Storage) -> None:
    """Make the image BASE, unless it exists: Debian with Python, from this host's mirror."""
    if BASE in storage.buildah("images", "--format", "{{.Name}}").split():
        return
    rootfs = storage.folder / "rootfs"
    packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
    subprocess.run(
        ["/usr/sbin/debootstrap", "--variant=minbase", packages, SUITE, rootfs],
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=BUILD_S,
    )
    container = storage.buildah("from", "scratch")
    storage.buildah("add", "--quiet", container, rootfs, "/")
    storage.buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    storage.buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(rootfs)


def make_context(folder: Path) -> Path:
    """Copy the files that git tracks, so that nothing else ends up in an image, and add a small model for the demo."""
    context = folder / "context"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    write_bundle(context / "demo" / "models")
    return context


def build(storage: Storage, context: Path, secrets: Path) -> str:
    """Build the target serving-cpu; return the image's name.

    Args:
        secrets: a folder for pip's configuration; it is mounted while pip runs and is in no layer.
    """
    (secrets / "pip.conf").write_text(_pip_conf(), encoding="utf-8")
    image = "localhost/pawserve:serving-cpu"
    storage.buildah(
        *("build", "--isolation", "chroot", "--format", "docker", "--target", "serving-cpu", "--tag", image),
        *("--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", f"REVISION={'0' * 40}"),
        *("--secret", f"id=pip_conf,src={secrets / 'pip.conf'}"),
        *("--secret", f"id=ca_certificates,src={CA_CERTIFICATES}"),
        context,
    )
    return image


def build_demo(storage: Storage, context: Path, serving_cpu: str) -> str:
    """Build the Dockerfile's last stage, the demo, on the image that `build` made; return the image's name."""
    dockerfile = (context / "Dockerfile").read_text(encoding="utf-8")
    last = context / "Dockerfile.demo"
    last.write_text(dockerfile[dockerfile.index("FROM serving-cpu AS serving-cpu-demo") :], encoding="utf-8")
    image = "localhost/pawserve:serving-cpu-demo"
    options = ("--isolation", "chroot", "--format", "docker", "--from", serving_cpu, "--tag", image)
    storage.buildah("build", *options, "--file", last, context)
    return image


def _pip_conf() -> str:
    """Configure pip as on this host, which may use a mirror with its own certificate."""
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = ["[global]", "cert = /run/secrets/ca_certificates", *([f"index-url = {index}"] if index else [])]
    return "\n".join(lines) + "\n"
