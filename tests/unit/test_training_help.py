"""The help pages of `python -m training` and `python -m export` on narrow and on wide terminals."""

import contextlib
import re
from pathlib import Path

import pytest

import export.__main__ as export_commands
from training.cli import program as training_commands

PAGES = [(main, name) for main in (training_commands, export_commands) for name in main.COMMANDS]


def help_page(capsys: pytest.CaptureFixture[str], module: object, *arguments: str) -> str:
    with contextlib.suppress(SystemExit):
        module.main([*arguments, "--help"])
    return capsys.readouterr().out


def early_breaks(page: str, width: int) -> list[str]:
    """Lines that end although the first word of their continuation would still fit on them."""
    inside = [line.strip("│|").rstrip() for line in page.splitlines()]  # the box's sides depend on the terminal
    early = []
    for line, following in zip(inside, inside[1:], strict=False):
        column = len(following) - len(following.lstrip())
        goes_on = column > 10 and line[column - 2 : column] == "  " and line[column : column + 1].strip()
        if goes_on and len(line) + 1 + len(following.split()[0]) <= width - 4:
            early.append(line)
    return early


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(("module", "name"), PAGES, ids=[name for _, name in PAGES])
def test_a_help_page_fits_the_width_of_the_terminal(
    module: object, name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    page = help_page(capsys, module, name)

    usage, *lines = page.splitlines()
    assert max(map(len, lines)) <= width, usage
    assert early_breaks(page, width) == []
    assert "None" not in page


@pytest.mark.parametrize("module", [training_commands, export_commands])
def test_the_list_of_commands_fits_a_narrow_terminal(
    module: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    page = help_page(capsys, module)

    assert max(map(len, page.splitlines())) <= 80
    assert all(name in page for name in module.COMMANDS)


def test_every_option_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    for module, name in PAGES:
        page = help_page(capsys, module, name)
        assert not re.search(r"^[│ ] +--?[a-z-]+ \S+\s+\((default|required)", page, re.MULTILINE), (name, page)
        assert not re.search(r"\(default: ('')?\)", page), (name, page)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--preset", "corse"], "--preset"),
        (["--preset"], "--preset"),
        (["--recipe"], "--recipe"),
        (["--checkpoint-every", "nan"], "--checkpoint-every is nan; it must lie between 0 and 86400"),
        (["--valid-fraction=7"], "--valid-fraction is 7.0; it must lie between 0.01 and 0.9"),
        (["--epochs", "0"], "--epochs is 0; it must lie between 1 and 1000"),
        (["--epochs", "abc"], "--epochs: 'abc' is no whole number"),
        (["--lr", "abc"], "--lr: 'abc' is no number"),
        (["--sizes", "128,abc"], "--sizes: 'abc' is no whole number"),
    ],
)
def test_invalid_options_are_reported_with_the_name_of_the_command(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = training_commands.main(["fit", "--data", "photos", "--run", "run", *options])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2
    assert complaint in said
    assert "python -m training fit" in said
    assert "pytest" not in said


def test_a_former_name_of_an_option_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--run", "run", "--models", "models", "--name", "pets", "--calibration-photos=3")
    assert export_commands.main(["bundle", *options]) == 2
    assert "--calibration-images is 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "words", "complaint"),
    [
        (training_commands, "fit --data nowhere --run run", "--data nowhere"),
        (training_commands, "fit --data . --run run --exclude a.csv", "--exclude a.csv"),
        (training_commands, "fit --data . --run run --weights ~/a.pth", f"--weights {Path.home()}/a.pth"),
        (training_commands, "fit --data . --run run --labels a.csv --images .", "--labels a.csv"),
        (training_commands, "find-lr --data nowhere", "--data nowhere"),
        (training_commands, "evaluate --data . --run run", "--run run"),
        (training_commands, "compare . run", "run run"),
        (training_commands, "check --data . --out out --weights a.pth", "--weights a.pth"),
        (training_commands, "shard --data nowhere --out out", "--data nowhere"),
        (export_commands, "bundle --run run --models . --name a", "--run run"),
    ],
)
def test_what_is_not_there_is_reported_before_anything_is_loaded(
    module: object, words: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} is imported"))
    assert module.main(words.split()) == 1
    assert capsys.readouterr().err.endswith(f": {complaint} does not exist\n")
