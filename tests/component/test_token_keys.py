"""Files of signing keys that several processes use."""

import os
import subprocess
import sys
from pathlib import Path

from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord
from tests.support.commands import run

RECORD = PredictionRecord(b"0" * 16, "pets", 1, 0, 0.5, 0)


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from serving.tokens.keyring import create_key_file, load_keys\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for number in range(50):\n"
        "    path = Path(sys.argv[1]) / str(number)\n"
        "    create_key_file(path)\n"
        "    print(load_keys(path))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = set()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answers.add(process.communicate()[0])
        assert process.returncode == 0

    assert len(answers) == 1
    assert len(os.listdir(tmp_path)) == 50


def test_the_command_rotates_and_prints_when_the_old_keys_end(tmp_path: Path) -> None:
    token = Keyring(tmp_path / "token.key").sign(RECORD)
    finished = run("serving", "rotate-key", "--state", tmp_path, "--sign-after", "0s", "--accept-old", "2h")
    assert finished.returncode == 0
    assert "earlier tokens are accepted until" in finished.stdout
    ring = Keyring(tmp_path / "token.key")
    assert ring.verify(token) == RECORD
    assert ring.sign(RECORD) != token
    assert run("serving", "rotate-key", "--state", tmp_path, "--accept-old", "soon").returncode == 2
