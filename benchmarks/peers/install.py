"""Make a virtual environment for each peer, so that their libraries do not mix with pawserve's.

    python -m benchmarks.peers.install --peers-dir DIR

Triton's binary comes with nvidia-pytriton. Its Python backend embeds the Python library of the system and is built for
numpy 1, so its environment is made by /usr/bin/python3.11 (`--triton-python` names another).
"""

import subprocess
import sys
import tomllib

from benchmarks.common import REPOSITORY, absolute_path, make_parser

PEERS = {
    # without its dependencies, which only the Python wrapper needs
    "triton": (["--no-deps", "nvidia-pytriton==0.7.0"], ["numpy<2"]),
    "litserve": (["litserve==0.2.19"], []),
    "bentoml": (["bentoml==1.4.39"], []),
}


def main() -> None:
    """Parse the arguments and install."""
    parser = make_parser(__doc__)
    parser.add_argument("--peers-dir", type=absolute_path, required=True)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--triton-python", default="/usr/bin/python3.11", help="with a shared libpython (%(default)s)")
    arguments = parser.parse_args()
    core: list[str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    for peer in arguments.peers:
        environment = arguments.peers_dir / peer
        python = arguments.triton_python if peer == "triton" else sys.executable
        subprocess.run([python, "-m", "venv", environment], check=True)
        packages, overrides = PEERS[peer]
        pip = [environment / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        subprocess.run([*pip, "-c", REPOSITORY / "constraints.txt", "onnxruntime", *core], check=True)
        if overrides:
            subprocess.run([*pip, *overrides], check=True)


if __name__ == "__main__":
    main()
