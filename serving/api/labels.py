"""The use case of recording labels for tokens, for all protocols. Imports neither gRPC nor protobuf."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from serving.statistics.feedback import Feedback
from serving.statistics.store import Label, LabelExpired, StatisticsUnavailable


@dataclass(frozen=True, slots=True)
class RecordedLabel:
    """A label that is on the disk."""

    label: Label
    previous: int | None
    """The class index of the label that it replaced; None if there was none."""
    classes: tuple[str, ...]
    """Classes of the version that made the prediction."""


async def record_labels(feedback: Feedback, inputs: Sequence[tuple[str, str]]) -> list[RecordedLabel | Exception]:
    """Record labels.

    Args:
        inputs: tokens of predictions, each with the label of its image.

    Returns:
        For each input the recorded label, or why it was not recorded: TokenError, TokenExpired, LabelUnknown,
        VersionUnknown or LabelExpired.

    Raises:
        StatisticsUnavailable: if the statistics cannot be read or written; then no label is recorded.
    """
    # in a thread: thousands of signatures take a while, and classes may have to be read from the disk
    verified = await asyncio.to_thread(_verify, feedback, inputs)
    labels = [each for each in verified if isinstance(each, Label)]
    recorded = iter(await feedback.record(labels) if labels else [])
    results: list[RecordedLabel | Exception] = []
    for each in verified:
        if isinstance(each, Exception):
            results.append(each)
        elif isinstance(previous := next(recorded), LabelExpired):
            results.append(previous)
        else:
            results.append(RecordedLabel(each, previous, feedback.classes_of(each.record)))
    return results


def _verify(feedback: Feedback, inputs: Sequence[tuple[str, str]]) -> list[Label | Exception]:
    verified: list[Label | Exception] = []
    for token, label in inputs:
        try:
            verified.append(feedback.read(token, label))
        except StatisticsUnavailable:
            raise
        except (ValueError, LookupError) as error:
            verified.append(error)
    return verified
