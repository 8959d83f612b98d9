"""The table of precision, recall, F1 and support, which the pages of training and export share."""

from serving.statistics.class_report import ClassReport


def class_rows(report: ClassReport) -> list[list[str]]:
    """The header, the averages, as there may be many classes, and the classes."""
    rows = [["class", "precision", "recall", "F1", "support"]]
    for scores in (*report.averages, *report.classes):
        three = (scores.precision, scores.recall, scores.f1)
        rows.append([scores.name, *(f"{score:.4f}" for score in three), f"{scores.support:,}"])
    return rows
