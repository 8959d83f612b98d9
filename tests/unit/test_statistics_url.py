"""The URL of the statistics database: from the option, the environment or a file, as containers are given secrets."""

from pathlib import Path

import pytest

from serving.cli.statistics_options import find_statistics

URL = "postgresql://pawserve:correct-horse@db/statistics"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAWSERVE_STATISTICS", "PAWSERVE_STATISTICS_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_the_default_is_empty() -> None:
    assert find_statistics(None) == ""


def test_the_option_precedes_the_environment_which_precedes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    monkeypatch.setenv("PAWSERVE_STATISTICS_FILE", str(tmp_path / "url"))
    assert find_statistics(None) == URL
    monkeypatch.setenv("PAWSERVE_STATISTICS", "postgresql://other/x")
    assert find_statistics(None) == "postgresql://other/x"
    assert find_statistics("postgresql://given/x") == "postgresql://given/x"


@pytest.mark.parametrize("content", [b"", b"\n", f"{URL} {URL}".encode(), b"\xff\xfe\x00"])
def test_a_file_without_a_url_is_rejected_without_printing_its_content(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_bytes(content)
    monkeypatch.setenv("PAWSERVE_STATISTICS_FILE", str(tmp_path / "url"))
    with pytest.raises(ValueError, match="PAWSERVE_STATISTICS_FILE") as rejected:
        find_statistics(None)
    assert "correct-horse" not in str(rejected.value)


def test_a_missing_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWSERVE_STATISTICS_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="No such file"):
        find_statistics(None)
