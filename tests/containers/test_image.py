"""The contents and the metadata of the serving-cpu image."""

import json
import subprocess

import pytest

from tests.support.containers.build import Images
from tests.support.containers.running import refused
from tests.support.containers.storage import Storage
from tests.support.waiting import LIMIT_S

LIMIT_MB = 450


def execute(storage: Storage, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A program in a new container."""
    program, *arguments = command
    options = storage.run_command("--entrypoint", json.dumps([program]), image, *arguments)
    return subprocess.run(options, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def test_the_image_is_small(images: Images, base: str, measured: list[dict[str, object]]) -> None:
    size, base_size = (int(images.storage.inspect(name)["Size"]) / 1e6 for name in (images.cpu, base))
    measured.append(
        {"what": "serving-cpu", "MB above its base": round(size - base_size), "MB of the base": round(base_size)}
    )
    assert size - base_size <= LIMIT_MB


def test_the_metadata_names_the_version_the_user_and_the_health_check(images: Images) -> None:
    described = images.storage.inspect(images.cpu)
    configuration = described["Config"]
    assert configuration["User"] == "65532:65532"
    assert configuration["Labels"]["org.opencontainers.image.title"] == "pawserve serving-cpu"
    assert configuration["Labels"]["org.opencontainers.image.revision"] == "0" * 40
    assert configuration["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert described["Healthcheck"]["Test"][:4] == ["CMD", "python", "-m", "serving"]
    assert set(configuration["Volumes"]) == {"/state"}
    assert set(configuration["ExposedPorts"]) == {"50051/tcp", "8080/tcp"}


def test_the_image_has_no_compilers_caches_or_build_secrets(images: Images) -> None:
    script = (
        "command -v cc gcc g++ make /opt/pawserve/bin/pip; "
        "find / -xdev \\( -name '.cache' -o -name '*.whl' -o -name 'pip.conf' -o -name 'torch' "
        "-o -name 'requirements*.txt' -o -path '/build*' -o -path '/run/secrets*' \\) -not -path '/usr/share/*' "
        "-not -path '/proc/*' 2>/dev/null"
    )
    found = execute(images.storage, images.cpu, "sh", "-c", script)
    # the base's own package manager is the base's affair
    assert [line for line in found.stdout.splitlines() if not line.startswith("/usr/share/python-wheels")] == []
    history = images.storage.podman("history", "--no-trunc", "--format", "json", images.cpu)
    assert "://" not in history.replace("https://pypi.nvidia.com", "")


def test_the_user_can_write_to_the_state_folder_only(images: Images) -> None:
    find = (
        "find",
        "/",
        "-xdev",
        "-writable",
        "-not",
        "-type",
        "l",
        "-not",
        "-path",
        "/proc/*",
        "-not",
        "-path",
        "/dev/*",
    )
    options = images.storage.run_command(
        "--read-only=false", "--entrypoint", json.dumps([find[0]]), images.cpu, *find[1:]
    )
    found = subprocess.run(options, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    # folders for everybody's temporary files are the base's
    assert {"/state"} <= set(found.stdout.split()) <= {"/state", "/tmp", "/var/tmp", "/run/lock"}
    assert execute(images.storage, images.cpu, "touch", "/state/file").returncode == 0
    assert execute(images.storage, images.cpu, "touch", "/opt/pawserve/file").returncode == 1


def test_every_module_is_compiled(images: Images) -> None:
    """A module without bytecode would be compiled at each start, because the file system is read-only."""
    program = (
        "import importlib.util, pathlib, sys; "
        "sources = list(pathlib.Path(sys.prefix, 'lib').rglob('site-packages/serving/**/*.py')); "
        "assert len(sources) > 50; "
        "print([str(s) for s in sources if not pathlib.Path(importlib.util.cache_from_source(s)).exists()])"
    )
    assert execute(images.storage, images.cpu, "python", "-c", program).stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help"), ("health", "--help")])
def test_the_entry_point_accepts_the_server_s_commands(images: Images, arguments: tuple[str, ...]) -> None:
    finished = refused(images.storage, images.cpu, serve=arguments)
    assert finished.returncode == 0
    assert "usage: python -m serving" in finished.stdout
