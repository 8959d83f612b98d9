import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ComparisonVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_VERDICT_UNSPECIFIED: _ClassVar[ComparisonVerdict]
    COMPARISON_VERDICT_UNDECIDED: _ClassVar[ComparisonVerdict]
    COMPARISON_VERDICT_FIRST_IS_BETTER: _ClassVar[ComparisonVerdict]
    COMPARISON_VERDICT_SECOND_IS_BETTER: _ClassVar[ComparisonVerdict]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_DRAINING: _ClassVar[ModelState]
    MODEL_STATE_REFUSED: _ClassVar[ModelState]
COMPARISON_VERDICT_UNSPECIFIED: ComparisonVerdict
COMPARISON_VERDICT_UNDECIDED: ComparisonVerdict
COMPARISON_VERDICT_FIRST_IS_BETTER: ComparisonVerdict
COMPARISON_VERDICT_SECOND_IS_BETTER: ComparisonVerdict
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_DRAINING: ModelState
MODEL_STATE_REFUSED: ModelState

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "images", "views", "top_k", "adaptive")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[ImageInput]
    views: int
    top_k: int
    adaptive: bool
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[ImageInput, _Mapping]]] = ..., views: _Optional[int] = ..., top_k: _Optional[int] = ..., adaptive: bool = ...) -> None: ...

class ImageInput(_message.Message):
    __slots__ = ("content", "label", "reference")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    label: str
    reference: str
    def __init__(self, content: _Optional[bytes] = ..., label: _Optional[str] = ..., reference: _Optional[str] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model", "results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    results: _containers.RepeatedCompositeFieldContainer[ImageResult]
    def __init__(self, model: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ImageResult, _Mapping]]] = ...) -> None: ...

class ClassifyStreamRequest(_message.Message):
    __slots__ = ("id", "model", "image", "views", "top_k", "adaptive")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    image: ImageInput
    views: int
    top_k: int
    adaptive: bool
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[_Union[ImageInput, _Mapping]] = ..., views: _Optional[int] = ..., top_k: _Optional[int] = ..., adaptive: bool = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("id", "model", "result")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    result: ImageResult
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., result: _Optional[_Union[ImageResult, _Mapping]] = ...) -> None: ...

class ImageResult(_message.Message):
    __slots__ = ("prediction", "error")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    error: _status_pb2.Status
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("classes", "token", "views", "id")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[ClassProbability]
    token: str
    views: int
    id: str
    def __init__(self, classes: _Optional[_Iterable[_Union[ClassProbability, _Mapping]]] = ..., token: _Optional[str] = ..., views: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ClassProbability(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class RecordLabelsRequest(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[LabelInput]
    def __init__(self, labels: _Optional[_Iterable[_Union[LabelInput, _Mapping]]] = ...) -> None: ...

class LabelInput(_message.Message):
    __slots__ = ("token", "label")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    token: str
    label: str
    def __init__(self, token: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class RecordLabelsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[LabelResult]
    def __init__(self, results: _Optional[_Iterable[_Union[LabelResult, _Mapping]]] = ...) -> None: ...

class LabelResult(_message.Message):
    __slots__ = ("recorded", "error")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    recorded: RecordedLabel
    error: _status_pb2.Status
    def __init__(self, recorded: _Optional[_Union[RecordedLabel, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class RecordedLabel(_message.Message):
    __slots__ = ("model", "predicted", "label", "previous_label")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_LABEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    predicted: str
    label: str
    previous_label: str
    def __init__(self, model: _Optional[str] = ..., predicted: _Optional[str] = ..., label: _Optional[str] = ..., previous_label: _Optional[str] = ...) -> None: ...

class GetStatisticsRequest(_message.Message):
    __slots__ = ("model", "start_time", "end_time")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    model: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, model: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetStatisticsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatistics]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatistics, _Mapping]]] = ...) -> None: ...

class ModelStatistics(_message.Message):
    __slots__ = ("model", "classes", "confusion_matrix", "predictions", "labels", "accuracy", "class_statistics", "matthews_correlation", "last_label_time", "unlabelled", "calibration_bins", "expected_calibration_error", "drift")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CLASS_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    MATTHEWS_CORRELATION_FIELD_NUMBER: _ClassVar[int]
    LAST_LABEL_TIME_FIELD_NUMBER: _ClassVar[int]
    UNLABELLED_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_BINS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    model: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    confusion_matrix: _containers.RepeatedCompositeFieldContainer[ConfusionRow]
    predictions: int
    labels: int
    accuracy: Rate
    class_statistics: _containers.RepeatedCompositeFieldContainer[ClassStatistics]
    matthews_correlation: float
    last_label_time: _timestamp_pb2.Timestamp
    unlabelled: int
    calibration_bins: _containers.RepeatedCompositeFieldContainer[CalibrationBin]
    expected_calibration_error: float
    drift: Drift
    def __init__(self, model: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., confusion_matrix: _Optional[_Iterable[_Union[ConfusionRow, _Mapping]]] = ..., predictions: _Optional[int] = ..., labels: _Optional[int] = ..., accuracy: _Optional[_Union[Rate, _Mapping]] = ..., class_statistics: _Optional[_Iterable[_Union[ClassStatistics, _Mapping]]] = ..., matthews_correlation: _Optional[float] = ..., last_label_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., unlabelled: _Optional[int] = ..., calibration_bins: _Optional[_Iterable[_Union[CalibrationBin, _Mapping]]] = ..., expected_calibration_error: _Optional[float] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("predictions", "window", "validation_images", "distributions", "alarm", "unavailable")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_IMAGES_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    predictions: int
    window: int
    validation_images: int
    distributions: _containers.RepeatedCompositeFieldContainer[DriftDistribution]
    alarm: bool
    unavailable: str
    def __init__(self, predictions: _Optional[int] = ..., window: _Optional[int] = ..., validation_images: _Optional[int] = ..., distributions: _Optional[_Iterable[_Union[DriftDistribution, _Mapping]]] = ..., alarm: bool = ..., unavailable: _Optional[str] = ...) -> None: ...

class DriftDistribution(_message.Message):
    __slots__ = ("name", "stability_index", "p_value", "alarm", "bins")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STABILITY_INDEX_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    name: str
    stability_index: float
    p_value: float
    alarm: bool
    bins: _containers.RepeatedCompositeFieldContainer[DriftBin]
    def __init__(self, name: _Optional[str] = ..., stability_index: _Optional[float] = ..., p_value: _Optional[float] = ..., alarm: bool = ..., bins: _Optional[_Iterable[_Union[DriftBin, _Mapping]]] = ...) -> None: ...

class DriftBin(_message.Message):
    __slots__ = ("label", "expected", "share")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    label: str
    expected: float
    share: float
    def __init__(self, label: _Optional[str] = ..., expected: _Optional[float] = ..., share: _Optional[float] = ...) -> None: ...

class CalibrationBin(_message.Message):
    __slots__ = ("lower", "upper", "mean_probability", "accuracy")
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    MEAN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    lower: float
    upper: float
    mean_probability: float
    accuracy: Rate
    def __init__(self, lower: _Optional[float] = ..., upper: _Optional[float] = ..., mean_probability: _Optional[float] = ..., accuracy: _Optional[_Union[Rate, _Mapping]] = ...) -> None: ...

class WatchStatisticsRequest(_message.Message):
    __slots__ = ("model", "min_interval")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    model: str
    min_interval: _duration_pb2.Duration
    def __init__(self, model: _Optional[str] = ..., min_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchStatisticsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatistics]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatistics, _Mapping]]] = ...) -> None: ...

class GetComparisonRequest(_message.Message):
    __slots__ = ("first", "second", "start_time", "end_time")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetComparisonResponse(_message.Message):
    __slots__ = ("first", "second", "pairs", "first_accuracy", "second_accuracy", "difference", "p_value", "sequential_test", "class_differences", "warnings")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    FIRST_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SECOND_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    SEQUENTIAL_TEST_FIELD_NUMBER: _ClassVar[int]
    CLASS_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    first: str
    second: str
    pairs: PairCounts
    first_accuracy: Rate
    second_accuracy: Rate
    difference: Difference
    p_value: float
    sequential_test: SequentialTest
    class_differences: _containers.RepeatedCompositeFieldContainer[ClassDifference]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, first: _Optional[str] = ..., second: _Optional[str] = ..., pairs: _Optional[_Union[PairCounts, _Mapping]] = ..., first_accuracy: _Optional[_Union[Rate, _Mapping]] = ..., second_accuracy: _Optional[_Union[Rate, _Mapping]] = ..., difference: _Optional[_Union[Difference, _Mapping]] = ..., p_value: _Optional[float] = ..., sequential_test: _Optional[_Union[SequentialTest, _Mapping]] = ..., class_differences: _Optional[_Iterable[_Union[ClassDifference, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class PairCounts(_message.Message):
    __slots__ = ("both_correct", "only_first_correct", "only_second_correct", "both_incorrect", "not_comparable")
    BOTH_CORRECT_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIRST_CORRECT_FIELD_NUMBER: _ClassVar[int]
    ONLY_SECOND_CORRECT_FIELD_NUMBER: _ClassVar[int]
    BOTH_INCORRECT_FIELD_NUMBER: _ClassVar[int]
    NOT_COMPARABLE_FIELD_NUMBER: _ClassVar[int]
    both_correct: int
    only_first_correct: int
    only_second_correct: int
    both_incorrect: int
    not_comparable: int
    def __init__(self, both_correct: _Optional[int] = ..., only_first_correct: _Optional[int] = ..., only_second_correct: _Optional[int] = ..., both_incorrect: _Optional[int] = ..., not_comparable: _Optional[int] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("value", "lower", "upper")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    value: float
    lower: float
    upper: float
    def __init__(self, value: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...

class SequentialTest(_message.Message):
    __slots__ = ("e_value", "threshold", "verdict", "labels_needed")
    E_VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    LABELS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    e_value: float
    threshold: float
    verdict: ComparisonVerdict
    labels_needed: int
    def __init__(self, e_value: _Optional[float] = ..., threshold: _Optional[float] = ..., verdict: _Optional[_Union[ComparisonVerdict, str]] = ..., labels_needed: _Optional[int] = ...) -> None: ...

class ClassDifference(_message.Message):
    __slots__ = ("label", "first", "second", "difference")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    label: str
    first: Rate
    second: Rate
    difference: Difference
    def __init__(self, label: _Optional[str] = ..., first: _Optional[_Union[Rate, _Mapping]] = ..., second: _Optional[_Union[Rate, _Mapping]] = ..., difference: _Optional[_Union[Difference, _Mapping]] = ...) -> None: ...

class ConfusionRow(_message.Message):
    __slots__ = ("predicted",)
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    predicted: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, predicted: _Optional[_Iterable[int]] = ...) -> None: ...

class Rate(_message.Message):
    __slots__ = ("value", "lower", "upper", "count")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    value: float
    lower: float
    upper: float
    count: int
    def __init__(self, value: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class ClassStatistics(_message.Message):
    __slots__ = ("label", "precision", "recall", "f1")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    F1_FIELD_NUMBER: _ClassVar[int]
    label: str
    precision: Rate
    recall: Rate
    f1: float
    def __init__(self, label: _Optional[str] = ..., precision: _Optional[_Union[Rate, _Mapping]] = ..., recall: _Optional[_Union[Rate, _Mapping]] = ..., f1: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class EnginePlan(_message.Message):
    __slots__ = ("instances", "threads", "max_batch_size", "rows_per_second", "latency", "lone_threads")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    LONE_THREADS_FIELD_NUMBER: _ClassVar[int]
    instances: int
    threads: int
    max_batch_size: int
    rows_per_second: float
    latency: _duration_pb2.Duration
    lone_threads: int
    def __init__(self, instances: _Optional[int] = ..., threads: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., rows_per_second: _Optional[float] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lone_threads: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "classes", "arch", "engine", "validation_accuracy", "max_views", "state", "state_reason", "precision", "runtime", "engine_reason", "plan", "adaptive_threshold", "shadow_share", "primary", "recommended_views", "default_views", "adaptive_views")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    MAX_VIEWS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_REASON_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SHARE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_VIEWS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VIEWS_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    arch: str
    engine: str
    validation_accuracy: float
    max_views: int
    state: ModelState
    state_reason: str
    precision: str
    runtime: str
    engine_reason: str
    plan: EnginePlan
    adaptive_threshold: float
    shadow_share: float
    primary: bool
    recommended_views: int
    default_views: int
    adaptive_views: int
    def __init__(self, name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., arch: _Optional[str] = ..., engine: _Optional[str] = ..., validation_accuracy: _Optional[float] = ..., max_views: _Optional[int] = ..., state: _Optional[_Union[ModelState, str]] = ..., state_reason: _Optional[str] = ..., precision: _Optional[str] = ..., runtime: _Optional[str] = ..., engine_reason: _Optional[str] = ..., plan: _Optional[_Union[EnginePlan, _Mapping]] = ..., adaptive_threshold: _Optional[float] = ..., shadow_share: _Optional[float] = ..., primary: bool = ..., recommended_views: _Optional[int] = ..., default_views: _Optional[int] = ..., adaptive_views: _Optional[int] = ...) -> None: ...
