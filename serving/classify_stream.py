"""One message of ClassifyStream in; its picture's answer, by its id, out."""

import grpc

from serving.errors import invalid
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pictures import Asked, PictureService, error_result

MAX_ID_BYTES = 128


class ClassifyStream:
    """Answers the messages of streams."""

    def __init__(self, pictures: PictureService) -> None:
        self._pictures = pictures

    def size(self, request: pb.ClassifyStreamRequest) -> int:
        """Bytes of its picture."""
        return len(request.image.content)

    async def answer(
        self, request: pb.ClassifyStreamRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyStreamResponse:
        """Classify one picture; whatever is wrong with it is its answer."""
        answer = pb.ClassifyStreamResponse(id=request.id)
        try:
            if (length := len(request.id.encode())) > MAX_ID_BYTES:
                message = f"id has {length:,} bytes; at most {MAX_ID_BYTES} are allowed"
                raise invalid("ID_TOO_LONG", message, "id", most=str(MAX_ID_BYTES))
            result = await self._classify(request, answer, context)
        except Exception as error:
            result = error_result(error, "image.content" if answer.model else "")
        answer.result.CopyFrom(result)
        return answer

    async def _classify(
        self, request: pb.ClassifyStreamRequest, answer: pb.ClassifyStreamResponse, context: grpc.aio.ServicerContext
    ) -> pb.ImageResult:
        image = request.image

        def check() -> Asked:
            asked = self._pictures.check(request)
            answer.model = asked.model.manifest.resource
            if unknown := self._pictures.check_label(asked, image.label, "image.label"):
                raise unknown
            return asked

        asked, (outcome,) = await self._pictures.compute_waiting(check, [image.content], context.time_remaining())
        if isinstance(outcome, Exception):
            raise outcome
        issued = self._pictures.issue(asked, outcome)
        if image.label and (failure := await self._pictures.record(asked, [(issued, image.label)])):
            return failure
        return self._pictures.to_result(asked, issued)
