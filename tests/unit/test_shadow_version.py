"""The option that names shadow versions, and the primary version beside one."""

from pathlib import Path

import pytest

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion
from serving.bundle.shadow_version import ShadowVersion, check_shadows, parse_shadow
from serving.cli.configuration import parse_configured
from serving.cli.errors import UsageError
from serving.cli.parser import build_parser, main
from serving.cli.serve_options import to_settings
from tests.support.bundles import write_bundle


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pets/4", ShadowVersion(ModelVersion("pets", 4), 1.0)),
        ("pets/4=1", ShadowVersion(ModelVersion("pets", 4), 1.0)),
        ("a.b_c-d/12=0.25", ShadowVersion(ModelVersion("a.b_c-d", 12), 0.25)),
    ],
)
def test_a_shadow_version_has_a_name_a_number_and_perhaps_a_share(text: str, expected: ShadowVersion) -> None:
    assert parse_shadow(text) == expected
    assert parse_shadow(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "pets", "pets/", "pets/0", "pets/04", "Pets/4", "pets/4/5", "models/pets/4", "=0.5"]
)
def test_another_text_is_wrong_use(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--shadow", text])
    assert ended.value.code == 2
    assert f"{text!r} is not a shadow version; write NAME/VERSION or NAME/VERSION=SHARE" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["", "0", "-0.5", "1.01", "nan", "inf", "half", "50%"])
def test_another_share_is_wrong_use(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--shadow", f"pets/4={share}"])
    assert ended.value.code == 2
    message = f"'pets/4={share}' is not a shadow version: its share must be a number above 0 and at most 1"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--shadow pets/4 --shadow pets/5=0.1", "a model has at most one shadow version: leave one of them out"),
        ("--model pets/4 --shadow pets/4", "is the version that --model pets/4 serves, and a version is no shadow of"),
        ("--model birds --shadow pets/4", "--model names birds, not pets; add --model pets, or leave --shadow out"),
    ],
)
def test_shadow_versions_that_contradict_other_options_are_rejected(options: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_settings(build_parser("serve").parse_args(["serve", *options.split()]))


def test_several_models_have_a_shadow_version_each() -> None:
    arguments = build_parser("serve").parse_args(["serve", "--shadow", "pets/4", "--shadow", "birds/2=0.5"])
    assert [*map(str, to_settings(arguments).shadows)] == ["pets/4=1", "birds/2=0.5"]
    check_shadows(arguments.shadow, ["pets", "birds/1"])


def opened(models: Path, *wanted: str, shadow: str, keep: int = 1) -> list[str]:
    bundles = find_bundles(models, wanted, keep, [parse_shadow(shadow)])
    return [str(bundle.manifest.model_version) for bundle in bundles]


def test_a_shadow_version_is_not_among_the_newest_of_its_name(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_bundle(tmp_path, "pets", number)
    assert opened(tmp_path, shadow="pets/3") == ["pets/2"]
    assert opened(tmp_path, shadow="pets/2") == ["pets/3"]
    assert opened(tmp_path, "pets", shadow="pets/3", keep=2) == ["pets/1", "pets/2"]
    assert opened(tmp_path, "pets/1", shadow="pets/3") == ["pets/1"]
    assert opened(tmp_path, shadow="pets/9") == ["pets/3"]  # not there yet


def test_a_shadow_version_needs_another_version_of_its_name(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 3)
    with pytest.raises(BundleError, match="holds no version of pets but pets/3, a shadow version"):
        opened(tmp_path, shadow="pets/3")
    with pytest.raises(BundleError, match="--shadow birds/1: .* holds no version of birds, only of pets; give one"):
        opened(tmp_path, shadow="birds/1")


def test_shadow_versions_may_be_in_a_variable() -> None:
    environment = {"PAWSERVE_SHADOW": "pets/4=0.5,birds/2"}
    options = parse_configured(build_parser("serve"), ["serve"], environment)
    assert [*map(str, to_settings(options).shadows)] == ["pets/4=0.5", "birds/2=1"]
    with pytest.raises(UsageError, match=r"the environment variable PAWSERVE_SHADOW: 'pets' is not a shadow version"):
        parse_configured(build_parser("serve"), ["serve"], {"PAWSERVE_SHADOW": "pets"})
