"""Who found no room in; who may look again, first come, first served, out.

What is asked of pictures in; their predictions with tokens, or why there are none, out. Shared by all protocols.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from serving.batching.admission import Quotas
from serving.batching.requests import QueueFull
from serving.bundle.model_version import parse_resource
from serving.context import CURRENT_CLIENT, Role
from serving.models.classifier import Classification, ImageData
from serving.models.repository import ModelNotFound, ModelRepository, ServedModel
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.rpc.errors import ApiError, invalid, to_api_error
from serving.rpc.pawserve.conversions import to_prediction
from serving.statistics.feedback import Feedback, LabelUnknown
from serving.statistics.store import Label, LabelExpired, StatisticsUnavailable
from serving.tokens.tokens import PredictionRecord

LOOK_AGAIN_S = 2.0
"""Who is not told for so long looks again unasked: what took the room may have ended in ways that tell nobody."""


class WaitQueue:
    """Those that wait for room. Only for one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()  # those that are done wait no longer

    @property
    def crowded(self) -> bool:
        """Whether somebody waits already."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    async def wait(self, *, again: bool = False) -> None:
        """Wait until it is worth while to look for room; who looks again goes before those who come now."""
        waiter = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(waiter)
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                await waiter
        except TimeoutError:
            return
        except asyncio.CancelledError:
            if not waiter.cancelled():  # told already: the next one takes the place
                self.next()
            raise

    def next(self) -> None:
        """Tell the next who waits that there is room."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


ADAPTIVE_VIEWS = 5
"""Most views of an adaptive request that does not say how many."""


@dataclass(frozen=True, slots=True)
class ClassifySpec:
    """What is asked of each picture of a request, checked."""

    model: ServedModel
    views: int
    top_k: int | None
    """None: all classes."""
    adaptive: bool


@dataclass(frozen=True, slots=True)
class SignedPrediction:
    """A prediction, counted and signed."""

    probabilities_K: list[float]
    """In the order of the model's classes."""
    order_K: list[int]
    """Indices of the classes, most probable first."""
    views: int
    record: PredictionRecord
    token: str


class ClassificationService:
    """Checks what is asked, lets the classifiers answer, and signs what they say."""

    def __init__(
        self, repository: ModelRepository, feedback: Feedback, max_views: int, bytes_in_flight: Quotas
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self.max_views = max_views
        self.turns = WaitQueue()
        """Of those who wait for room, rather than be refused."""
        self._bytes_in_flight = bytes_in_flight

    def find(self, resource: str) -> ServedModel:
        """The version that a resource name means; "" is the newest version of the only model.

        Raises:
            ApiError: if it means none, or could mean several.
        """
        if resource:
            try:
                return self._repository.find(*parse_model(resource))
            except ModelNotFound as error:
                raise to_api_error(error, "model") from error
        models = self._repository.models
        if not models:
            raise to_api_error(ModelNotFound("no model is served now"), "model")
        if len({model.manifest.name for model in models}) > 1:
            choices = ", ".join(model.manifest.resource for model in models)
            raise invalid("MODEL_AMBIGUOUS", f"several models are served, so name one: {choices}", "model")
        return models[-1]

    def check(self, request: pb.ClassifyRequest | pb.ClassifyStreamRequest) -> ClassifySpec:
        """What a request asks of its pictures.

        Raises:
            ApiError: naming the field that is at fault.
        """
        views = request.views if request.HasField("views") else None
        top_k = request.top_k if request.HasField("top_k") else None
        return self.ask(self.find(request.model), views, top_k, request.adaptive)

    def ask(self, model: ServedModel, views: int | None, top_k: int | None, adaptive: bool) -> ClassifySpec:
        """What is asked, with defaults for what is None.

        Raises:
            ApiError: naming the field that is at fault.
        """
        if views is None:
            views = min(ADAPTIVE_VIEWS, self.max_views) if adaptive else 1
        if not 1 <= views <= self.max_views:
            message = f"views is {views}; 1 to {self.max_views} are allowed"
            raise invalid("VIEWS_OUT_OF_RANGE", message, "views", max_views=str(self.max_views))
        if top_k is not None and top_k < 1:
            raise invalid("TOP_K_OUT_OF_RANGE", f"top_k is {top_k}; it must be at least 1", "top_k")
        return ClassifySpec(model, views, top_k, adaptive)

    def has_room(self, size: int) -> bool:
        """Whether this caller may hold pictures of so many bytes more; alone, any may."""
        return not self._bytes_in_flight.total or self._bytes_in_flight.admits(CURRENT_CLIENT.get(), size)

    def hold(self, size: int) -> None:
        """Count bytes of pictures that this caller holds."""
        self._bytes_in_flight.take(CURRENT_CLIENT.get(), size)

    def let_go(self, size: int) -> None:
        """Count them no more, and tell who waits for room."""
        self._bytes_in_flight.give_back(CURRENT_CLIENT.get(), size)
        self.turns.next()

    async def classify(
        self, asked: ClassifySpec, pictures: Sequence[ImageData], timeout_s: float | None
    ) -> list[Classification | Exception]:
        """Classify pictures, whose bytes are counted meanwhile.

        Returns:
            For each picture its probabilities, or the exception that stopped it.

        Raises:
            ApiError, QueueFull: if too much is in flight; nothing was begun.
            TimeoutError: if the time has passed.
        """
        if not pictures:
            return []
        size = sum(picture_bytes(picture) for picture in pictures)
        if not self.has_room(size):
            shares = self._bytes_in_flight
            message = f"pictures of {shares.total:,} bytes are in flight; {shares.limit:,} may be, in fair shares"
            raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", message, retry_after_s=1.0)
        self.hold(size)
        try:
            return await self.compute(asked, pictures, timeout_s)
        finally:
            self.let_go(size)

    async def compute(
        self, asked: ClassifySpec, pictures: Sequence[ImageData], timeout_s: float | None
    ) -> list[Classification | Exception]:
        """As `classify`, for pictures whose bytes the caller counts."""
        classifier = asked.model.classifier
        outcomes = await classifier.classify(pictures, asked.views, timeout_s, adaptive=asked.adaptive)
        for outcome in outcomes:
            if isinstance(outcome, TimeoutError):  # the deadline is the request's, not one picture's
                raise outcome
        return outcomes

    async def compute_waiting(
        self, check: Callable[[], ClassifySpec], pictures: Sequence[ImageData], timeout_s: float | None
    ) -> tuple[ClassifySpec, list[Classification | Exception]]:
        """As `compute`, but wait for room rather than be refused.

        Args:
            check: says what is asked; called again after each wait, since models come and go.

        Raises:
            ApiError: what `check` raises.
            QueueFull: if these pictures have more views than there ever is room for.
            TimeoutError: if the time has passed.
        """
        if again := self.turns.crowded:
            await self.turns.wait()
        while True:
            asked = check()
            try:
                return asked, await self.compute(asked, pictures, timeout_s)
            except QueueFull as full:
                if full.retry_after_s is None or not asked.model.classifier.rows_in_flight:
                    raise
            await self.turns.wait(again=again)
            again = True

    def issue(self, asked: ClassifySpec, averaged: Classification) -> SignedPrediction:
        """Count a prediction and sign it."""
        probabilities_K: list[float] = averaged.probabilities_K.tolist()
        # by Python: numpy lets go of the interpreter's lock to sort, and on a busy server it takes long to return
        order_K = sorted(range(len(probabilities_K)), key=probabilities_K.__getitem__, reverse=True)
        record, token = self._feedback.issue(asked.model.manifest, order_K[0], probabilities_K[order_K[0]])
        return SignedPrediction(probabilities_K, order_K, averaged.views, record, token)

    def to_result(self, asked: ClassifySpec, issued: SignedPrediction) -> pb.ImageResult:
        """A prediction as pawserve.v1 tells it."""
        classes, order_K = asked.model.manifest.classes, issued.order_K[: asked.top_k]
        prediction = to_prediction(classes, issued.probabilities_K, order_K, issued.views, issued.token)
        return pb.ImageResult(prediction=prediction)

    def check_label(self, asked: ClassifySpec, label: str, field: str) -> ApiError | None:
        """Why a picture with this label is not classified; None if the label is a class, or empty.

        Raises:
            RoleMissing: if the caller may record no labels.
        """
        if not label:
            return None
        CURRENT_CLIENT.get().require(Role.LABEL, "record labels")
        if label in asked.model.class_index:
            return None
        manifest = asked.model.manifest
        return to_api_error(LabelUnknown(label, manifest.resource, manifest.classes), field)

    async def record(
        self, asked: ClassifySpec, labels: Sequence[tuple[SignedPrediction, str]]
    ) -> pb.ImageResult | None:
        """Record true labels that came with the pictures; what to answer instead of them if that cannot be done."""
        try:
            truths = [Label(issued.record, asked.model.class_index[label]) for issued, label in labels]
            recorded = await self._feedback.record(truths)
        except StatisticsUnavailable as error:
            return error_result(error, "")
        # only a clock that is far behind makes new predictions too old
        return next((error_result(each, "") for each in recorded if isinstance(each, LabelExpired)), None)


def picture_bytes(picture: ImageData) -> int:
    """Bytes that a picture holds."""
    return len(picture) if isinstance(picture, bytes) else picture.nbytes


def error_result(error: Exception, field: str) -> pb.ImageResult:
    """Why a picture has no prediction; `field` is where it came from."""
    return pb.ImageResult(error=to_api_error(error, field).to_status())


def parse_model(resource: str) -> tuple[str, int | None]:
    """Name and version of a request's model. Raises ApiError for what is no model name."""
    try:
        return parse_resource(resource)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), "model") from error
