"""The serving-gpu image builds engines first, one builder at a time, and clears what a killed builder left."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S, eventually

SCRIPT = ROOT / "deploy" / "containers" / "serve_gpu.py"


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    ours = {
        name: value for name, value in os.environ.items() if name != "PAWSERVE_PHOTOS"
    }  # it would calibrate on them
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd="/",  # as in the image: modules come from where they are installed, not from where it is started
        env={**ours, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in errors
    return process.returncode, out, errors


def stand_in(folder: Path, body: str) -> str:
    """A PYTHONPATH with a fake `export` package, because the real one needs a GPU."""
    (folder / "export").mkdir()
    (folder / "export" / "__init__.py").touch()
    (folder / "export" / "__main__.py").write_text(body)
    return f"{folder}:{ROOT}"


def test_other_commands_and_other_engines_are_passed_to_the_server(tmp_path: Path) -> None:
    code, out, _ = finish(start("health", "--help", PAWSERVE_ENGINES=str(tmp_path / "engines")))
    assert (code, "usage: python -m serving health" in out) == (0, True)
    arguments = ("serve", "--engine", "cpu", "--models", tmp_path, "--state", tmp_path / "state")
    code, _, errors = finish(start(*arguments, PAWSERVE_ENGINES=str(tmp_path / "engines")))
    assert (code, "holds no model" in errors) == (1, True)
    assert not (tmp_path / "engines").exists()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a GPU is there")
def test_a_missing_driver_is_reported_before_the_server_starts(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    engines = tmp_path / "engines"
    code, _, errors = finish(start("serve", "--models", tmp_path / "models", PAWSERVE_ENGINES=str(engines)))
    assert code == 1
    assert "CUDA" in errors
    assert not list(engines.rglob("*.engine"))


def test_an_engine_is_built_for_each_served_bundle_before_the_server_starts(tmp_path: Path) -> None:
    for name, version in (("cats", 1), ("cats", 2), ("dogs", 7)):
        write_bundle(tmp_path / "models", name, version)
    path = stand_in(tmp_path, "import sys\nprint(*sys.argv[1:], flush=True)\n")
    engines = tmp_path / "engines"
    arguments = ("serve", "--models", tmp_path / "models", "--model", "cats", "--listen", "127.0.0.1:0")
    code, out, errors = finish(start(*arguments, PYTHONPATH=path, PAWSERVE_ENGINES=str(engines)))
    folder = tmp_path / "models" / "cats" / "2"
    assert out.splitlines() == [f"engine {folder} --precision fp32 --engines {engines}"]
    assert (code, "--engine tensorrt cannot be used" in errors) == (1, True)  # the real server, on this host


def test_engines_are_built_before_servers_need_them(tmp_path: Path) -> None:
    for name, version in (("cats", 1), ("cats", 2), ("dogs", 7)):
        write_bundle(tmp_path / "models", name, version)
    path = stand_in(tmp_path, "import sys\nprint(*sys.argv[1:], flush=True)\n")
    engines = tmp_path / "engines"
    arguments = ("engines", "--models", tmp_path / "models")
    code, out, errors = finish(start(*arguments, PYTHONPATH=path, PAWSERVE_ENGINES=str(engines)))
    served = [tmp_path / "models" / "cats" / "2", tmp_path / "models" / "dogs" / "7"]
    assert out.splitlines() == [f"engine {folder} --precision fp32 --engines {engines}" for folder in served]
    assert (code, errors) == (0, "")


def test_an_unknown_option_of_engines_is_rejected(tmp_path: Path) -> None:
    code, _, errors = finish(start("engines", "--modells", tmp_path, PAWSERVE_ENGINES=str(tmp_path / "engines")))
    assert (code, "--modells" in errors) == (2, True)
    assert not (tmp_path / "engines").exists()


def test_a_failed_build_ends_the_start_with_its_exit_code(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    path = stand_in(tmp_path, "import sys\nsys.exit(3)\n")
    process = start("serve", "--models", tmp_path / "models", PYTHONPATH=path, PAWSERVE_ENGINES=str(tmp_path / "e"))
    assert finish(process)[0] == 3


def test_the_next_builder_clears_the_files_of_a_killed_one(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    engines = tmp_path / "engines"
    path = stand_in(
        tmp_path,
        f"import os, pathlib, time\nfolder = pathlib.Path({str(engines)!r})\n"
        "if not list(folder.glob('.engine.*')) and not (folder / 'seen').exists():\n"
        "    (folder / '.engine.half').mkdir()\n    (folder / '.engine.half' / 'engine.plan').write_text('half')\n"
        "    (folder / 'seen').write_text(str(os.getpid()))\n    time.sleep(600)\n"
        "print(sorted(each.name for each in folder.iterdir()))\n",
    )
    arguments = ("serve", "--models", tmp_path / "models")
    process = start(*arguments, PYTHONPATH=path, PAWSERVE_ENGINES=str(engines))
    try:
        assert eventually(lambda: (engines / "seen").exists() and (engines / "seen").read_text() != "")
        with (engines / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a second container would wait for the first
        os.kill(int((engines / "seen").read_text()), signal.SIGKILL)
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)
    assert (engines / ".engine.half").exists()

    _, out, _ = finish(start(*arguments, PYTHONPATH=path, PAWSERVE_ENGINES=str(engines)))
    assert out.splitlines() == ["['.lock', 'seen']"]
