"""The use case of classifying images, for all protocols: check, admit, classify, sign, record labels.

Imports neither gRPC nor protobuf. The protocols convert their requests to a `ClassifySpec` and images, and the results
to their responses.
"""

import time
from collections.abc import Callable, Sequence
from math import inf

from serving.api.errors import ApiError, Code, invalid, to_api_error
from serving.api.in_flight import BytesInFlight
from serving.api.lookup import find_model
from serving.api.predictions import ClassifySpec, SignedPrediction
from serving.batching.requests import EXPIRED, QueueFull
from serving.bundle.manifest import Manifest
from serving.bundle.model_version import ModelVersion
from serving.context import CURRENT_CALL, CURRENT_CLIENT, Role
from serving.models.classifier import Classification
from serving.models.drift import Drift
from serving.models.image_data import ImageData, size_of
from serving.models.loader import ServedModel
from serving.models.repository import ModelRepository
from serving.shadows.queue import ShadowQueue
from serving.statistics.feedback import Feedback, LabelUnknown
from serving.statistics.store import Label, LabelExpired, StatisticsUnavailable
from serving.tokens.tokens import ReferenceInvalid, check_reference

RETRY_S = 1.0


class ClassificationService:
    """Classifies the images of requests and signs the predictions.

    Args:
        repository: the models that are served.
        feedback: signs predictions and records labels.
        max_views: most views of a request.
        default_views: of a request that names no number; None for the one that its model's bundle recommends.
        in_flight: the bytes of images held by all requests.
        shadows: gets the images that shadow versions classify too.
    """

    def __init__(
        self,
        repository: ModelRepository,
        feedback: Feedback,
        max_views: int,
        in_flight: BytesInFlight,
        shadows: ShadowQueue,
        *,
        default_views: int | None = 1,
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self.max_views = max_views
        self._default_views = default_views
        self.in_flight = in_flight
        self._shadows = shadows

    def drift_of(self, version: ModelVersion) -> Drift | None:
        """The last predictions of a version beside those on the validation images; None if it is not served."""
        model = next((each for each in self._repository.models if each.manifest.model_version == version), None)
        return model.drift.read() if model else None

    def find(self, resource: str) -> ServedModel:
        """The served version with a resource name; "" for the primary version of the only model.

        Raises:
            ApiError: if there is none, or several could be meant.
        """
        return find_model(self._repository, resource)

    def default_views(self, manifest: Manifest, *, adaptive: bool) -> int:
        """Number of views of a request that names none."""
        views = manifest.adaptive_views if adaptive else self._default_views or manifest.recommended_views
        return min(views, self.max_views)

    def check(self, model: ServedModel, views: int | None, top_k: int | None, adaptive: bool) -> ClassifySpec:
        """Check the parameters of a request and replace None by the defaults.

        Raises:
            ApiError: naming the invalid field.
        """
        if views is None:
            views = self.default_views(model.manifest, adaptive=adaptive)
        if not 1 <= views <= self.max_views:
            message = f"views is {views}; 1 to {self.max_views} are allowed"
            raise invalid("VIEWS_OUT_OF_RANGE", message, "views", max_views=str(self.max_views))
        if top_k is not None and top_k < 1:
            raise invalid("TOP_K_OUT_OF_RANGE", f"top_k is {top_k}; it must be at least 1", "top_k")
        return ClassifySpec(model, views, top_k, adaptive)

    async def classify(
        self,
        spec: ClassifySpec,
        images: Sequence[ImageData],
        labels: Sequence[str],
        timeout_s: float | None,
        *,
        references: Sequence[str],
    ) -> list[SignedPrediction | Exception]:
        """Classify images, and record the labels that came with them.

        Args:
            labels: for each image its label, or "".
            references: for each image the client's name of it, or "".

        Returns:
            For each image its prediction, or why there is none. An image with an unknown label or an invalid reference
            is not classified; if labels cannot be recorded, their images have an ApiError instead of a prediction.

        Raises:
            ApiError, QueueFull: if too much is in flight; nothing was begun.
            RoleMissing: if there is a label and the client may not record labels.
            TimeoutError: if the time has passed.
        """
        if not any(labels) and not any(references):
            outcomes = await self.compute(spec, images, timeout_s)
            return [each if isinstance(each, Exception) else self.sign(spec, each) for each in outcomes]
        errors = [self._check(spec, *each) for each in zip(labels, references, strict=True)]
        wanted = [image for image, error in zip(images, errors, strict=True) if error is None]
        valid = iter(await self.compute(spec, wanted, timeout_s))
        return await self._sign_and_record(spec, [error or next(valid) for error in errors], labels, references)

    async def classify_waiting(
        self,
        check: Callable[[], ClassifySpec],
        image: ImageData,
        label: str,
        timeout_s: float | None,
        *,
        reference: str,
    ) -> tuple[ClassifySpec, SignedPrediction | Exception]:
        """As `classify`, for one image of a stream: see `compute_waiting`."""

        def check_all() -> ClassifySpec:
            spec = check()
            if error := self._check(spec, label, reference):
                raise error
            return spec

        spec, outcomes = await self.compute_waiting(check_all, [image], timeout_s)
        (result,) = await self._sign_and_record(spec, outcomes, [label], [reference])
        return spec, result

    async def compute(
        self, spec: ClassifySpec, images: Sequence[ImageData], timeout_s: float | None
    ) -> list[Classification | Exception]:
        """Admit and classify images, without signing the predictions: each is then to be passed to `sign`.

        Returns:
            For each image its probabilities, or the exception that prevented them.

        Raises:
            ApiError, QueueFull: if too much is in flight; nothing was begun.
            TimeoutError: if the time has passed.
        """
        if not images:
            return []
        size = sum(map(size_of, images))
        in_flight = self.in_flight
        if not in_flight.admits(size):
            message = (
                f"images of {in_flight.total:,} bytes are in flight, and the request has {size:,}; the limit is "
                f"{in_flight.limit:,}, of which each client has a quota: try again"
            )
            raise ApiError(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", message, retry_after_s=RETRY_S)
        in_flight.take(size)
        try:
            return await self._compute(spec, images, timeout_s)
        finally:
            in_flight.release(size)

    async def compute_waiting(
        self, check: Callable[[], ClassifySpec], images: Sequence[ImageData], timeout_s: float | None
    ) -> tuple[ClassifySpec, list[Classification | Exception]]:
        """As `compute`, for images of a stream: waits instead of raising QueueFull, and does not count the bytes.

        Args:
            check: makes the spec; called again after each wait, since models come and go.

        Raises:
            ApiError: what `check` raises.
            QueueFull: if the images have more views than the queue can ever hold.
            TimeoutError: if the time has passed.
        """
        waiting = self.in_flight.waiting
        deadline = time.monotonic() + (inf if timeout_s is None else timeout_s)
        if again := waiting.occupied:
            await waiting.wait(deadline - time.monotonic(), tried=False)
        while True:
            spec = check()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(EXPIRED)
            try:
                return spec, await self._compute(spec, images, None if timeout_s is None else left_s)
            except QueueFull as full:
                if full.retry_after_s is None or not spec.model.classifier.rows_in_flight:
                    raise
            if again:
                waiting.pass_on()
            await waiting.wait(left_s, again=again)
            again = True

    def sign(self, spec: ClassifySpec, classification: Classification, reference: str = "") -> SignedPrediction:
        """Count a prediction and sign it, with the client's name of the image."""
        probabilities_K: list[float] = classification.probabilities_K.tolist()
        # not by numpy, which releases the interpreter's lock to sort and waits long for it on a busy server
        ranking_K = sorted(range(len(probabilities_K)), key=probabilities_K.__getitem__, reverse=True)
        predicted, manifest = ranking_K[0], spec.model.manifest
        spec.model.drift.add(predicted, probabilities_K[predicted])
        shadow_version = self._shadows.shadow_version(classification)
        issued = self._feedback.issue(manifest, predicted, probabilities_K[predicted], reference, shadow_version)
        record, token = issued
        self._shadows.put(record.id, classification)
        return SignedPrediction(probabilities_K, ranking_K, classification.views, record, token)

    def discard(self, outcomes: Sequence[Classification | Exception]) -> None:
        """Release what `compute` returned, if it is not signed."""
        for outcome in outcomes:
            if isinstance(outcome, Classification) and outcome.kept:
                outcome.kept.close()

    async def _compute(
        self, spec: ClassifySpec, images: Sequence[ImageData], timeout_s: float | None
    ) -> list[Classification | Exception]:
        kept = self._shadows.keep(spec.model, images)
        outcomes: list[Classification | Exception] = []
        try:
            with self._repository.use(spec.model) as model:
                computed = await model.classifier.classify(
                    images,
                    spec.views,
                    timeout_s,
                    adaptive=spec.adaptive,
                    client=CURRENT_CLIENT.get(),
                    call=CURRENT_CALL.get(),
                    kept=kept,
                )
            for outcome in computed:
                if isinstance(outcome, TimeoutError):  # the deadline belongs to the request, not to one image
                    raise outcome
            outcomes = computed
        finally:
            self._shadows.ended(kept, outcomes)
        return outcomes

    def _check(self, spec: ClassifySpec, label: str, reference: str) -> LabelUnknown | ReferenceInvalid | None:
        """What is wrong with an image's label or reference; raises RoleMissing if the client may not record labels."""
        if reference:
            try:
                check_reference(reference)
            except ReferenceInvalid as error:
                return error
        if not label:
            return None
        CURRENT_CLIENT.get().require(Role.LABEL, "record labels")
        manifest = spec.model.manifest
        return None if label in spec.model.class_index else LabelUnknown(label, manifest.resource, manifest.classes)

    async def _sign_and_record(
        self,
        spec: ClassifySpec,
        outcomes: Sequence[Classification | Exception],
        labels: Sequence[str],
        references: Sequence[str],
    ) -> list[SignedPrediction | Exception]:
        results = [
            outcome if isinstance(outcome, Exception) else self.sign(spec, outcome, reference)
            for outcome, reference in zip(outcomes, references, strict=True)
        ]
        pairs = zip(results, labels, strict=True)
        labelled = [
            Label(result.record, spec.model.class_index[label])
            for result, label in pairs
            if label and isinstance(result, SignedPrediction)
        ]
        if not labelled:
            return results
        try:
            recorded = await self._feedback.record(labelled)
        except StatisticsUnavailable as error:
            failure: Exception | None = error
        else:  # a new prediction is too old only if the clock is far behind
            failure = next((each for each in recorded if isinstance(each, LabelExpired)), None)
        if failure is None:
            return results
        failure = to_api_error(failure)
        return [
            failure if label and isinstance(result, SignedPrediction) else result
            for result, label in zip(results, labels, strict=True)
        ]
