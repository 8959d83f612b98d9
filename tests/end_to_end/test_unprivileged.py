"""The server as a container runs it: a user without rights, no home, nothing writable but the state folder."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, WarmProcess, main_of
from tests.support.images import RED
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S

NOBODY = 65_534

# It may read what lies in folders that are closed to others, as the interpreter may here, and has no other right.
UNPRIVILEGED = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ),
]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a server as another user"),
    pytest.mark.skipif(not (shutil.which("setpriv") and shutil.which("strace")), reason="needs setpriv and strace"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (state.st_mtime_ns, state.st_size)
        for path in folder.rglob("*")
        if (state := path.lstat()) and not path.is_dir()
    }


def test_nothing_is_written_but_in_the_state_folder_and_only_the_owner_reads_it(folder: Path) -> None:
    write_bundle(folder / "models")
    (folder / "state").mkdir()
    os.chown(folder / "state", NOBODY, NOBODY)
    before = snapshot(folder / "models")
    trace = folder / "trace"
    # what it opens for writing, makes, renames or removes, wherever that is
    calls = "trace=open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,link,linkat"
    serve = [sys.executable, "-B", "-m", "serving", "serve", "--models", folder / "models", "--state", folder / "state"]
    command = ["strace", "-f", "-qq", "-e", calls, "-o", trace, *UNPRIVILEGED, *serve, "--listen", "127.0.0.1:0"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    with subprocess.Popen(
        list(map(str, command)), cwd="/", env=environment, stdout=subprocess.PIPE, text=True, umask=0
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            address = re.search(r"ready on (127\.0\.0\.1:\d+)", line)
            assert address, line
            with Client(address[1], timeout_s=LIMIT_S) as client:
                (result,) = client.classify([RED]).results
                client.record_labels([(result.token, "red")])
                client.statistics()
        finally:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
            assert process.wait() == 0

    written = set()
    for entry in trace.read_text().splitlines():
        if "= -1" in entry or ("open" in entry and not re.search(r"O_(WRONLY|RDWR|CREAT)", entry)):
            continue
        written |= set(re.findall(r'"([^"]+)"', entry))
    outside = {path for path in written if not path.startswith((str(folder / "state"), "/dev/", "/proc/self/"))}
    assert outside == set()
    assert written, "strace saw nothing at all, so it proves nothing"
    assert snapshot(folder / "models") == before

    for path in (folder / "state").rglob("*"):
        state = path.stat()
        assert state.st_uid == NOBODY
        assert stat.S_IMODE(state.st_mode) == (0o700 if path.is_dir() else 0o600), path.name


def test_a_state_folder_that_only_root_may_write_to_is_said(folder: Path) -> None:
    write_bundle(folder / "models")
    (folder / "state").mkdir(mode=0o755)
    serve = ["-m", "serving", "serve", "--models", str(folder / "models"), "--state", str(folder / "state")]
    finished = subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-B", *serve],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert finished.returncode == 1
    assert "--state" in finished.stderr
    assert "Traceback" not in finished.stderr


def as_nobody(package: str, *arguments: object) -> int:
    """Run a command as a user who may read no folder that is closed to others; the libraries are loaded already."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    return main_of(package, *arguments)


@pytest.fixture
def images(folder: Path) -> Path:
    """Images of two classes, of which one has a subfolder that only root may read."""
    for name in ("cats", "dogs", "dogs/closed"):
        place = folder / "images" / name
        place.mkdir(parents=True)
        for number in range(6):
            image = Image.effect_noise((40, 40), 20 + number).convert("RGB")
            image.save(place / f"{name[-4:]}{number}.png")
    for place in (folder / "images", *(folder / "images").rglob("*")):  # whatever the umask is
        place.chmod(0o755)
    (folder / "images" / "dogs" / "closed").chmod(0o700)
    (folder / "out").mkdir()
    os.chown(folder / "out", NOBODY, NOBODY)
    return folder / "images"


def test_training_names_a_subfolder_that_it_may_not_read(images: Path, folder: Path) -> None:
    # a command that loads no module once it runs: the interpreter may lie in a folder that only root can read
    finished = WarmProcess(
        as_nobody, "training", "shard", "--data", images, "--out", folder / "out" / "shards"
    ).finish()
    assert finished.returncode == 0, finished.stderr
    assert f"{images}/dogs/closed: the folder cannot be read: Permission denied" in finished.stderr
    assert json.loads((folder / "out" / "shards" / "shards.json").read_text())["classes"] == ["cats", "dogs"]


def test_predict_names_a_subfolder_that_it_may_not_read(images: Path, folder: Path) -> None:
    write_bundle(folder / "models")
    with running_server(folder / "models", folder / "state") as address:
        finished = WarmProcess(as_nobody, "serving", "predict", images, "--json", "--server", address).finish()
    assert f"{images}/dogs/closed: the folder cannot be read: Permission denied" in finished.stderr
    assert len(json.loads(finished.stdout)["results"]) == 12
