"""Finds Slurm and munge: installed, or unpacked from Debian's packages into a folder."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

PREFIX = "PAWSERVE_SLURM"
"""Names the folder into which the packages were unpacked; without it they are looked for where they are installed."""
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scancel", "scontrol", "sinfo")
NAMESPACES = ("unshare", "nsenter", "ip", "mount")


@dataclass(frozen=True)
class Tools:
    """Slurm's programs by name, and the environment that they need."""

    programs: dict[str, Path]
    plugins: Path
    environment: dict[str, str]


def find_tools() -> Tools | str:
    """The tools, or the reason why there are none."""
    prefix = Path(os.environ.get(PREFIX, "/"))
    folders = os.pathsep.join(str(prefix / name) for name in ("usr/sbin", "usr/bin"))
    found: dict[str, Path] = {}
    for name in PROGRAMS:  # Debian's alternatives, which unpacking does not make, give slurmd-wlm its name
        path = shutil.which(name, path=folders) or shutil.which(f"{name}-wlm", path=folders)
        if path:
            found[name] = Path(path)
    missing = [name for name in PROGRAMS if name not in found]
    missing += [name for name in NAMESPACES if not shutil.which(name)]
    if missing:
        return f"needs {', '.join(missing)}: docs/distributed-training.md says where they come from"
    if os.geteuid() != 0:
        return "nodes with names and addresses of their own need root"
    environment = {}
    if prefix != Path("/"):
        places = (prefix / LIBRARIES, prefix / LIBRARIES / "slurm-wlm")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, places))
    return Tools(found, prefix / LIBRARIES / "slurm-wlm", environment)
