"""Statistics of a version in; their protobuf messages out."""

from serving.calibration import Bin, expected_calibration_error
from serving.confusion import ConfusionMatrix, Rate
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.statistics import VersionStatistics


def to_statistics(statistics: VersionStatistics) -> pb.ModelStatistics:
    """What GetStatistics and WatchStatistics say of a version."""
    matrix = statistics.confusion
    answer = pb.ModelStatistics(
        model=f"models/{statistics.model}/versions/{statistics.version}",
        classes=statistics.classes,
        confusion_matrix=[pb.ConfusionRow(predicted=row_K) for row_K in matrix.counts_KK.tolist()],
        predictions=statistics.predictions,
        labels=matrix.total,
        accuracy=_to_rate(matrix.accuracy()),
        class_statistics=[_to_class_statistics(matrix, index) for index in range(len(statistics.classes))],
        matthews_correlation=matrix.matthews(),
        unlabelled=statistics.predictions - matrix.total,
        calibration_bins=map(_to_calibration_bin, statistics.calibration),
        expected_calibration_error=expected_calibration_error(statistics.calibration),
    )
    if statistics.last_label_ms is not None:
        answer.last_label_time.FromMilliseconds(statistics.last_label_ms)
    return answer


def _to_class_statistics(matrix: ConfusionMatrix, index: int) -> pb.ClassStatistics:
    return pb.ClassStatistics(
        label=matrix.classes[index],
        precision=_to_rate(matrix.precision(index)),
        recall=_to_rate(matrix.recall(index)),
        f1=matrix.f1(index),
    )


def _to_calibration_bin(each: Bin) -> pb.CalibrationBin:
    return pb.CalibrationBin(
        lower=each.lower,
        upper=each.upper,
        mean_probability=each.mean_probability,
        accuracy=_to_rate(each.accuracy),
    )


def _to_rate(rate: Rate | None) -> pb.Rate | None:
    if rate is None:
        return None
    return pb.Rate(value=rate.value, lower=rate.lower, upper=rate.upper, count=rate.count)
