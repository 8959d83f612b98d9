"""Wheels for hosts without a network: which are needed, checksums, pieces; and the page of a GPU check."""

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.gpu.report import to_page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_wheels", ROOT / "deploy" / "gpu-wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_s_requirements_are_those_of_linux_without_extras(wheels: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        needed = (
            "numpy>=2",
            "colorama; sys_platform == 'win32'",
            "pytest; extra == 'dev'",
            "old; python_version<'3.12'",
        )
        archive.writestr("a-1.dist-info/METADATA", "".join(f"Requires-Dist: {each}\n" for each in needed))
    assert [each.name for each in wheels.requirements_of(wheel, "3.12")] == ["numpy"]
    assert [each.name for each in wheels.requirements_of(wheel, "3.11")] == ["numpy", "old"]


def test_what_comes_with_the_host_s_torch_is_not_fetched(wheels: ModuleType) -> None:
    needed = wheels.project_requirements(["fastai"])
    assert any(each.startswith("grpcio") for each in needed)
    assert "fastai" in needed
    assert not any(each.startswith("pawserve") for each in needed)
    for name in ("torch", "torchvision", "triton", "nvidia-cudnn-cu13"):
        assert wheels.ON_THE_HOST.fullmatch(name)
    assert not wheels.ON_THE_HOST.fullmatch("timm")


def test_versions_are_pinned_without_local_parts(wheels: ModuleType) -> None:
    pins = wheels.constraints()
    assert pins["onnx"]
    assert not any("+" in version or " " in version for version in pins.values())


def test_tensorrt_has_the_project_s_version_and_is_built_from_its_source(
    wheels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], check: bool) -> None:
        commands.append(command)
        name, _, version = command[-1].partition("==")
        with zipfile.ZipFile(tmp_path / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as archive:
            needed = "Requires-Dist: tensorrt_cu13_libs==11.4.0.106\n" if name == "tensorrt-cu13" else ""
            archive.writestr(f"{name}-{version}.dist-info/METADATA", needed)

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    versions = wheels.fetch(["tensorrt-cu13"], "3.12", tmp_path, set())
    assert versions == {"tensorrt-cu13": "11.4.0.106", "tensorrt-cu13-libs": "11.4.0.106"}
    assert [command[3] for command in commands] == ["wheel", "download"]
    assert all("--extra-index-url=https://pypi.nvidia.com" in command for command in commands)
    with pytest.raises(ValueError, match="is a placeholder"):
        wheels.fetch(["other==0.0.0a0"], "3.12", tmp_path, set())


def test_packages_do_not_replace_those_of_with(
    wheels: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        wheels.main(["--out", str(tmp_path), "--with", "tensorrt", "--packages", "numpy"])
    assert "not allowed with" in capsys.readouterr().err


def test_large_wheels_are_cut_and_their_checksums_kept(wheels: ModuleType, tmp_path: Path) -> None:
    large, small = b"x" * 2_500_000, b"small"
    (tmp_path / "large-1-py3-none-any.whl").write_bytes(large)
    (tmp_path / "small-1-py3-none-any.whl").write_bytes(small)
    wheels.finish(tmp_path, 1)
    pieces = sorted(tmp_path.glob("large*.part-*"))
    assert [piece.stat().st_size for piece in pieces] == [1_000_000, 1_000_000, 500_000]
    assert not (tmp_path / "large-1-py3-none-any.whl").exists()
    assert b"".join(piece.read_bytes() for piece in pieces) == large
    wheels.finish(tmp_path, 1)  # a second run keeps what the first has cut
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert sums["large-1-py3-none-any.whl"] == hashlib.sha256(large).hexdigest()
    assert sums["small-1-py3-none-any.whl"] == hashlib.sha256(small).hexdigest()


def test_pieces_of_an_earlier_run_are_removed(wheels: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "large-1-py3-none-any.whl"
    for piece_mb, count in ((1, 3), (2, 2), (None, 0)):
        wheel.write_bytes(b"x" * 2_500_000)
        wheels.finish(tmp_path, piece_mb)
        assert len(list(tmp_path.glob("*.part-*"))) == count


def test_the_page_shows_reasons_values_and_rows() -> None:
    done = {"status": "done", "seconds": 2.0, "result": {"device": "A | B", "paths": [{"engine": "cuda", "same": 0.5}]}}
    skipped = {"status": "skipped", "seconds": 0.0, "reason": "no time\nis left"}
    page = to_page({"date": "2026-01-01T10:00:00+00:00", "parts": {"parity": done, "serving": skipped}})
    assert "| serving | skipped | 0 | no time is left |" in page
    assert "| device | A \\| B |" in page
    assert "| engine | same |" in page
    assert "| cuda | 0.5 |" in page
