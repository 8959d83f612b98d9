"""The endpoints below /v1: `pawserve.v1.Classifier` as JSON."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from serving.api.errors import ApiError, Code, invalid
from serving.api.pawserve.classifier import MAX_IMAGES, ClassifierCalls
from serving.api.status import from_status
from serving.models.image_data import EncodedImage
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.web.bodies import BodyLimits, read_body, run_large
from serving.web.browsers import REPORT_HEADERS
from serving.web.messages import json_response, parse_message, to_json
from serving.web.pawserve.events import EventStream
from serving.web.pawserve.multipart import parse_parts
from serving.web.pawserve.query import Query

T = TypeVar("T")
JSON = "application/json"
MULTIPART = "multipart/form-data"
RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types of an image as the body, in addition to image/*; the last one is what curl sends unless told."""
WINDOW = ("model", "start_time", "end_time")
HOW = ("model", "views", "top_k", "adaptive", "timeout")


class ClassifierEndpoints:
    """Answers the requests below /v1."""

    def __init__(self, calls: ClassifierCalls, limits: BodyLimits) -> None:
        self._calls = calls
        self._limits = limits

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify."""
        content_type = request.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in (*RAW, JSON, MULTIPART) and not media_type.startswith("image/"):
            given = f"Content-Type is {media_type[:60]!r}; send an image as image/* or application/octet-stream, "
            raise invalid("CONTENT_TYPE_UNSUPPORTED", f"{given}several as {MULTIPART}, or {JSON}", "")
        query = Query(request, (*HOW, "filenames" if media_type == MULTIPART else "reference"))
        timeout_s = query.seconds("timeout")
        async with read_body(request, self._limits) as body:
            contents: Sequence[EncodedImage] | None = None
            if media_type == JSON:
                if query.text("reference"):
                    raise invalid("PARAMETER_INVALID", "give the reference of each image in the JSON", "reference")
                message = await run_large(len(body), parse_message, body, pb.ClassifyRequest())
            else:
                contents, references = [body], [query.text("reference")]
                if media_type == MULTIPART:
                    parts = await run_large(len(body), parse_parts, body, content_type, MAX_IMAGES)
                    contents = [part.content for part in parts]
                    named = query.boolean("filenames")
                    references = [part.file_name if named else "" for part in parts]
                message = pb.ClassifyRequest(images=[pb.ImageInput(reference=each) for each in references])
            del body
            parameters = pb.ClassifyRequest(
                model=query.text("model"),
                views=query.whole("views"),
                top_k=query.whole("top_k"),
                adaptive=query.boolean("adaptive"),
            )
            message.MergeFrom(parameters)
            response = await within(timeout_s, self._calls.classify(message, timeout_s, contents))
        if media_type not in (JSON, MULTIPART) and response.results[0].HasField("error"):
            raise from_status(response.results[0].error)
        return json_response(to_json(response))

    async def record_labels(self, request: Request) -> Response:
        """POST /v1/labels."""
        Query(request, ())
        async with read_body(request, self._limits) as body:
            message = parse_message(body, pb.RecordLabelsRequest())
            return json_response(to_json(await self._calls.record_labels(message)))

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        Query(request, ())
        return json_response(to_json(await self._calls.list_models()))

    async def get_manifest(self, request: Request) -> Response:
        """GET /v1/models/NAME/versions/N/manifest."""
        Query(request, ())
        resource = _resource(request)
        response = json_response(self._calls.manifest(resource).to_json().encode())
        if self._calls.report(resource):
            response.headers["link"] = f'</v1/{resource}/report>; rel="describedby"'
        return response

    async def get_report(self, request: Request) -> Response:
        """GET /v1/models/NAME/versions/N/report."""
        Query(request, ())
        resource = _resource(request)
        if (report := self._calls.report(resource)) is None:
            raise ApiError(Code.NOT_FOUND, "REPORT_NOT_FOUND", f"the bundle of {resource} has no report of a training")
        return FileResponse(report, media_type="text/html", headers=REPORT_HEADERS)

    async def get_statistics(self, request: Request) -> Response:
        """GET /v1/statistics."""
        query = Query(request, WINDOW)
        message = pb.GetStatisticsRequest(
            model=query.text("model"), start_time=query.time("start_time"), end_time=query.time("end_time")
        )
        return json_response(to_json(await self._calls.statistics.get(message)))

    async def get_comparison(self, request: Request) -> Response:
        """GET /v1/comparison."""
        query = Query(request, ("first", "second", "start_time", "end_time"))
        message = pb.GetComparisonRequest(
            first=query.text("first"),
            second=query.text("second"),
            start_time=query.time("start_time"),
            end_time=query.time("end_time"),
        )
        return json_response(to_json(await self._calls.comparison.get(message)))

    async def watch_statistics(self, request: Request) -> Response:
        """GET /v1/statistics/watch."""
        query = Query(request, ("model", "min_interval"))
        message = pb.WatchStatisticsRequest(model=query.text("model"))
        if (seconds := query.seconds("min_interval")) is not None:
            message.min_interval.FromNanoseconds(round(seconds * 1e9))
        return await EventStream.open("statistics", partial(self._calls.statistics.watch, message))


def _resource(request: Request) -> str:
    return "models/{name}/versions/{version}".format_map(request.path_params)


async def within(timeout_s: float | None, call: Awaitable[T]) -> T:
    """Await a call; raises TimeoutError with a message when the time has passed; None for no limit."""
    try:
        async with asyncio.timeout(timeout_s) as scope:
            return await call
    except TimeoutError as error:
        if scope.expired():
            raise TimeoutError(f"the request's timeout of {timeout_s:g} s has passed") from error
        raise
