"""The client for threads: `AsyncClient` in a background event loop, so that each call is defined once."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType

from serving.client.async_client import DEFAULT_TIMEOUT_S, IN_FLIGHT, AsyncClient
from serving.client.credentials import ANONYMOUS, Credentials
from serving.client.event_loop import BackgroundLoop, BlockingIterator
from serving.client.messages import Classified, ClientError, NamedImage, StreamResult
from serving.client.retries import Retry
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.system.network import DEFAULT_ADDRESS


class Client:
    """Connections to one server, or to several in rotation, made at the first call and again after they broke.

    Any number of threads may use a client. It belongs to the process that made it: a forked process makes its own.

    Every method raises ClientError when its call as a whole fails, and ValueError once the client is closed. Calls that
    fail because the server is unavailable or overloaded are tried again as `retry` says; they end within `timeout_s`
    seconds in any case.

    Args:
        address: HOST:PORT; several IP addresses separated by commas; or any gRPC target, such as
            dns:///pawserve:50051.
        timeout_s: seconds for each call, retries included.
        retry: how often and after which delays calls are tried again.
        credentials: TLS files and token.

    Raises:
        ValueError: if several addresses cannot be used together, or the credentials cannot be used.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        credentials: Credentials = ANONYMOUS,
    ) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(address, timeout_s=timeout_s, retry=retry, credentials=credentials)

        self.address = address
        self._loop = BackgroundLoop.of_this_process()
        self._client = self._loop.run(make())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls in progress end with ClientError, code CANCELLED."""
        self._loop.run(self._client.close())

    def classify(
        self,
        images: Sequence[bytes],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        labels: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
    ) -> Classified:
        """Classify encoded images in one request.

        Args:
            images: 1 to 64 encoded images.
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty if the server has one model.
            views: number of views of each image to average; None for the server's default.
            top_k: number of classes to return for each image; None for all.
            adaptive: evaluate one view first, and the others only if its result is uncertain.
            labels: the label of each image, "" where unknown. Such a request is not tried again when its connection
                breaks, so that no label is counted twice.
            references: your own name of each image, "" for none; at most 256 bytes in UTF-8, without control
                characters. It is in the token, and exported with the label.
        """
        return self._loop.run(
            self._client.classify(
                images,
                model=model,
                views=views,
                top_k=top_k,
                adaptive=adaptive,
                labels=labels,
                references=references,
            )
        )

    def classify_many(
        self,
        images: Iterable[bytes | NamedImage],
        *,
        model: str = "",
        views: int | None = None,
        top_k: int | None = None,
        adaptive: bool = False,
        in_flight: int = IN_FLIGHT,
        streams: int = 1,
    ) -> Iterator[StreamResult]:
        """Classify any number of encoded images as fast as the server can, by ClassifyStream.

        Images are taken from `images`, in another thread, as results arrive. Results come as soon as they are known, in
        any order; `index` tells which image each belongs to. An image that fails has a ClientError as its result.
        Broken connections are made again, and images without a result are sent again. Leave the iterator early to end
        the streams.

        Args:
            images: encoded images, or NamedImage with a reference each. A generator may read them as they are asked
                for.
            in_flight: most images without a result at a time; their total size is at most 512 MiB.
            streams: number of streams that share the images. Use at least one for each server.
            model, views, top_k, adaptive: as for `classify`.

        Raises:
            ClientError: if the server rejects the stream, retries before the first result do not help, or no result
                arrives for `timeout_s` seconds.
        """
        options = pb.ClassifyStreamRequest(model=model, views=views, top_k=top_k, adaptive=adaptive)
        batches = self._client.batches(images, options, in_flight=in_flight, streams=streams)
        return BlockingIterator(self._loop, batches)

    def record_labels(self, labels: Sequence[tuple[str, str]]) -> list[pb.RecordedLabel | ClientError]:
        """Record labels for earlier predictions.

        Args:
            labels: pairs of a prediction's token and the correct class.

        Returns:
            For each pair, in order, what was recorded or why it was not.
        """
        return self._loop.run(self._client.record_labels(labels))

    def statistics(
        self, model: str = "", *, start: datetime | None = None, end: datetime | None = None
    ) -> list[pb.ModelStatistics]:
        """The confusion matrix and the rates derived from it, for each version with predictions or labels.

        Args:
            model: "models/NAME" or "models/NAME/versions/VERSION"; empty for all.
            start: only predictions made at this time or later; with a time zone.
            end: only predictions made before this time; with a time zone.
        """
        return self._loop.run(self._client.statistics(model, start=start, end=end))

    def compare(
        self, first: str, second: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> pb.GetComparisonResponse:
        """Compare the accuracy of two versions of a model.

        Args:
            first: "models/NAME/versions/VERSION".
            second: another version of the same model; differences are second minus first.
            start: only predictions made at this time or later; with a time zone.
            end: only predictions made before this time; with a time zone.
        """
        return self._loop.run(self._client.compare(first, second, start=start, end=end))

    def watch_statistics(self, model: str = "", *, min_interval_s: float = 1.0) -> Iterator[list[pb.ModelStatistics]]:
        """The statistics now, and again whenever they have changed. Ends when the server stops.

        Args:
            model: as for `statistics`.
            min_interval_s: least seconds between two of them.
        """

        async def batches() -> AsyncGenerator[list[list[pb.ModelStatistics]], None]:
            async with aclosing(self._client.watch_statistics(model, min_interval_s=min_interval_s)) as changes:
                async for models in changes:
                    yield [models]

        return BlockingIterator(self._loop, batches())

    def list_models(self) -> list[pb.Model]:
        """The model versions that are served."""
        return self._loop.run(self._client.list_models())

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, for one service or, if `service` is empty, for the server as a whole."""
        return self._loop.run(self._client.health(service))
