"""Tables and progress on narrow terminals: columns are chosen by the width, and no number is cut."""

import io
import re

import pytest
from rich.console import Console

import training.console
from serving.cli.tables import statistics_view
from serving.pb.pawserve.v1 import classifier_pb2 as pb

BREEDS = [f"breed of cats {number}" for number in range(1, 13)]


def statistics(classes: list[str]) -> pb.ModelStatistics:
    """Statistics in which each number of the confusion matrix occurs once: 100, 101, …"""
    count = len(classes)
    rate = pb.Rate(value=0.98765, lower=0.9712, upper=0.9934, count=1234)
    return pb.ModelStatistics(
        model="models/pets/versions/1",
        classes=classes,
        predictions=5000,
        labels=1234,
        accuracy=rate,
        confusion_matrix=[
            pb.ConfusionRow(predicted=[100 + row * count + column for column in range(count)]) for row in range(count)
        ],
        class_statistics=[pb.ClassStatistics(label=name, precision=rate, recall=rate, f1=0.9812) for name in classes],
    )


def printed(classes: list[str], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(statistics_view([statistics(classes)]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "first"), [(80, " 1 breed of cats 1"), (300, "breed of cats 1")])
def test_a_matrix_of_twelve_classes_is_printed_whole(width: int, first: str) -> None:
    text = printed(BREEDS, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    (row,) = (line for line in text.splitlines() if re.search(r"\b100\b", line))
    assert [cell.strip() for cell in row.strip("│").split("│")] == [first.strip(), *map(str, range(100, 112))]
    for number in range(100, 244):
        assert re.search(rf"\b{number}\b", text)
    assert text.count("98.8% (97.1–99.3)") == 25 - 1  # precision and recall of twelve classes


def test_a_matrix_that_does_not_fit_is_replaced_by_advice_and_no_number_is_cut() -> None:
    text = printed(BREEDS, 60)
    assert "the confusion matrix of 12 classes is too wide to print" in text
    assert "…" not in text
    assert text.count("98.8% (97.1–99.3)") == 24


def last_frame(screen: io.StringIO) -> str:
    """What is on the screen at the end: what was written after the last line was erased."""
    return screen.getvalue().rpartition("\x1b[2K")[2]


def test_progress_that_never_began_leaves_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(training.console, "console", console)
    with training.console.progress("reading images"):
        pass
    with training.console.progress("reading images") as on_progress:
        on_progress(0, 0)
    assert not re.search(r"0/[?0]", last_frame(screen))
    with training.console.progress("reading images") as on_progress:
        on_progress(3, 3)
    assert "3/3" in last_frame(screen)


def test_long_lines_are_wrapped_between_words_on_a_terminal_and_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "epoch 12 of 100: training loss 0.1234, validation loss 0.2345, accuracy 98.76%, learning rate 0.00123"
    for is_terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=is_terminal, width=80, highlight=False, soft_wrap=True)
        monkeypatch.setattr(training.console, "console", console)
        training.console.say(line)
        lines = screen.getvalue().splitlines()
        assert " ".join(part.strip() for part in lines) == line
        assert len(lines) == (2 if is_terminal else 1)
