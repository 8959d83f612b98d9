"""Commands start quickly: they load only what they use."""

import subprocess
import sys

import pytest

from tests.support.commands import ROOT

HEAVY = ("grpc", "numpy", "onnxruntime", "PIL", "ray", "rich", "starlette", "uvicorn")


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["--help"], set()),
        (["health", "--help"], {"grpc"}),
        (["label", "--help"], {"grpc"}),
        (["predict", "--help"], {"grpc", "rich"}),
        (["stats", "--help"], {"grpc", "rich", "PIL", "numpy"}),
        (["new-token", "--help"], set()),
        (["rotate-key", "--help"], set()),
        (["dev-certificate", "--help"], set()),
    ],
)
def test_commands_load_only_the_libraries_that_they_use(arguments: list[str], loaded: set[str]) -> None:
    program = (
        "import sys\nfrom serving.__main__ import main\ntry:\n    main(sys.argv[1:])\n"
        f"except SystemExit:\n    print('loaded', *(name for name in {HEAVY} if name in sys.modules))"
    )
    command = [sys.executable, "-c", program, *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(finished.stdout.splitlines()[-1].split()[1:]) == loaded


@pytest.mark.parametrize("arguments", [["--help"], ["bundle", "--help"], ["engine", "--help"]])
def test_the_help_of_export_loads_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['export', *sys.argv[1:]]; import export.__main__ as program\n"
        "try: program.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
