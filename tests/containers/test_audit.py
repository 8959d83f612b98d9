"""Known vulnerabilities of the packages in the images."""

import json
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

REQUIREMENTS = ROOT / "deploy" / "containers" / "requirements"


@pytest.mark.parametrize("name", ["serving-cpu", "serving-gpu", "training"])
def test_no_package_has_a_known_vulnerability(name: str, work: object, measured: list[dict[str, object]]) -> None:
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    finished = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, "--requirement", REQUIREMENTS / f"{name}.txt"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    try:
        packages = json.loads(finished.stdout)["dependencies"]
    except ValueError:
        measured.append({"what": f"pip-audit {name}", "audited": "nothing: it gave no answer"})
        pytest.skip(f"pip-audit gave no answer, so nothing was audited: {finished.stderr.strip()[-300:]}")
    audited = [package for package in packages if "vulns" in package]
    found = [f"{each['name']} {each['version']}: {each['vulns']}" for each in audited if each["vulns"]]
    measured.append({"what": f"pip-audit {name}", "audited": f"{len(audited)} of {len(packages)}", "found": len(found)})
    assert found == []
    if len(audited) < len(packages):
        # it exits with 0 and "No known vulnerabilities found" if it could ask about nothing at all
        reason = next(package["skip_reason"] for package in packages if "vulns" not in package)
        pytest.skip(f"only {len(audited)} of {len(packages)} packages were audited: {reason}")
