"""GetComparison of `pawserve.v1.Classifier`."""

import asyncio
from collections.abc import Callable

from serving.api.comparisons import VersionComparison, compare_versions
from serving.api.errors import invalid, to_api_error
from serving.api.pawserve.rates import to_rate
from serving.api.pawserve.windows import to_window
from serving.bundle.model_version import ModelVersion, parse_resource
from serving.comparison.proportions import Interval
from serving.comparison.sequential import THRESHOLD, Verdict
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics.store import StatisticsStore, Window, WindowExpired

_VERDICTS = {
    Verdict.UNDECIDED: pb.COMPARISON_VERDICT_UNDECIDED,
    Verdict.FIRST_IS_BETTER: pb.COMPARISON_VERDICT_FIRST_IS_BETTER,
    Verdict.SECOND_IS_BETTER: pb.COMPARISON_VERDICT_SECOND_IS_BETTER,
}


class ComparisonService:
    """Compares versions for calls.

    Args:
        store: the statistics.
        find: raises ApiError unless a version with the resource name is served.
    """

    def __init__(self, store: StatisticsStore, find: Callable[[str], object]) -> None:
        self._store = store
        self._find = find

    async def get(self, request: pb.GetComparisonRequest) -> pb.GetComparisonResponse:
        """Compare two versions of one model."""
        first, second = (_to_version(getattr(request, field), field) for field in ("first", "second"))
        if first.name != second.name or first == second:
            message = f"first is {first} and second is {second}; give two versions of one model"
            raise invalid("COMPARISON_INVALID", message, "second")
        window = to_window(request)
        try:
            compared = await asyncio.to_thread(self._compare, first, second, window)
        except WindowExpired as error:
            field = "start_time" if request.HasField("start_time") else "end_time"
            raise to_api_error(error, field) from error
        return to_comparison(compared)

    def _compare(self, first: ModelVersion, second: ModelVersion, window: Window) -> VersionComparison:
        for version in (first, second):
            if self._store.classes_of(version) is None:
                self._find(version.resource)  # a version that is served but has no statistics is no error
        return compare_versions(self._store, first, second, window)


def _to_version(resource: str, field: str) -> ModelVersion:
    try:
        name, version = parse_resource(resource)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), field) from error
    if version is None:
        message = f"{field} is {resource!r}; name a version: models/NAME/versions/VERSION"
        raise invalid("MODEL_NAME_INVALID", message, field)
    return ModelVersion(name, version)


def to_comparison(compared: VersionComparison) -> pb.GetComparisonResponse:
    """A comparison as a message."""
    result = compared.result
    message = pb.GetComparisonResponse(
        first=compared.first.resource,
        second=compared.second.resource,
        first_accuracy=to_rate(result.first),
        second_accuracy=to_rate(result.second),
        difference=_to_difference(result.difference) if result.difference else None,
        p_value=result.p_value,
        warnings=compared.warnings,
        class_differences=(
            pb.ClassDifference(
                label=each.name,
                first=to_rate(each.first),
                second=to_rate(each.second),
                difference=_to_difference(each.difference),
            )
            for each in result.classes
        ),
    )
    if result.pairs:
        message.pairs.both_correct = result.pairs.both_correct
        message.pairs.only_first_correct = result.pairs.only_first_correct
        message.pairs.only_second_correct = result.pairs.only_second_correct
        message.pairs.both_incorrect = result.pairs.both_incorrect
        message.pairs.not_comparable = compared.not_comparable
    if test := result.sequential:
        message.sequential_test.CopyFrom(
            pb.SequentialTest(
                e_value=test.e_value,
                threshold=THRESHOLD,
                verdict=_VERDICTS[test.verdict],
                labels_needed=result.labels_needed,
            )
        )
    return message


def _to_difference(difference: Interval) -> pb.Difference:
    return pb.Difference(value=difference.value, lower=difference.lower, upper=difference.upper)
