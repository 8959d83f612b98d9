"""OpenTelemetry spans of calls and batches, for a collector that takes OTLP over gRPC.

A call has a span with the name of its method, whose parent is the span in the client's `traceparent`. Below it, each
image has one `prepare` span and one or more `engine` spans. The environment variables of OpenTelemetry's SDK apply,
such as OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.batching.requests import RowSlice
from serving.context import Call, HttpExchange
from serving.system.network import is_local

SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Status codes that make a server span an error: OpenTelemetry's semantic conventions for gRPC."""
EXPORT_TIMEOUT_S = 5.0
MAX_CHARACTERS = 256
"""Maximum length of an attribute whose text a client chooses."""


class Tracing:
    """Spans of one server. While the collector is unavailable, spans beyond the SDK's limits are dropped.

    Args:
        endpoint: "http://HOST:PORT", or "https://…" for TLS.
    """

    def __init__(self, endpoint: str) -> None:
        attributes = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: "pawserve"}
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        # a proxy cannot reach a collector on this machine
        options: Any = (("grpc.enable_http_proxy", 0),) if is_local(urlsplit(endpoint).netloc) else ()
        exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S, channel_options=options)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("pawserve")
        self._propagator = TraceContextTextMapPropagator()
        self._monotonic_to_unix_ns = time.time_ns() - time.monotonic_ns()

    def close(self) -> None:
        """Send the remaining spans, for a few seconds at most."""
        self._provider.shutdown()

    def began(self, call: Call, metadata: dict[str, str | bytes]) -> None:
        """Begin the span of a call, below the client's span if that one is traced."""
        parent = self._propagator.extract({key: value for key, value in metadata.items() if isinstance(value, str)})
        attributes = {**_describe_method(call.method), "pawserve.request_id": call.request_id}
        if call.http is not None:
            attributes |= _describe_request(call.http, metadata)
        span = self._tracer.start_span(
            call.method,
            parent,
            SpanKind.SERVER,
            attributes,
            start_time=self._unix_ns(call.began),
        )
        if span.is_recording():
            call.trace = trace.set_span_in_context(span)
        else:
            span.end()

    def ended(self, call: Call, code: str, seconds: float) -> None:
        """End the span of a call."""
        if call.trace is None:
            return
        span = trace.get_current_span(call.trace)
        span.set_attributes({"pawserve.images": call.images, "pawserve.rows": call.rows})
        if call.http is None:
            number: int = grpc.StatusCode[code].value[0]
            span.set_attribute("rpc.grpc.status_code", number)
            failed = code in SERVER_ERRORS
        else:
            span.set_attribute("pawserve.code", code)
            failed = call.http.status >= 500
            if call.http.status:
                span.set_attribute("http.response.status_code", call.http.status)
            if failed:
                span.set_attribute("error.type", str(call.http.status))
        if failed:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end(self._unix_ns(call.began + seconds))

    def computed(self, batch: Sequence[RowSlice], began: float, ended: float, resource: str) -> None:
        """Add the spans of an engine call: one for each image of a traced call, and one for its preparation."""
        rows = sum(last - first for _, first, last in batch)
        for job, first, last in batch:
            call = job.request.call
            if call is None or call.trace is None:
                continue
            if first == 0:
                self._add("prepare", call, job.prepare_began, job.prepare_ended, {"pawserve.rows": job.rows})
            self._add(
                "engine",
                call,
                began,
                ended,
                {"pawserve.model": resource, "pawserve.rows": last - first, "pawserve.batch_rows": rows},
            )

    def _add(self, name: str, call: Call, began: float, ended: float, attributes: dict[str, str | int]) -> None:
        span = self._tracer.start_span(name, call.trace, attributes=attributes, start_time=self._unix_ns(began))
        span.end(self._unix_ns(ended))

    def _unix_ns(self, monotonic_s: float) -> int:
        return self._monotonic_to_unix_ns + int(monotonic_s * 1e9)


def _describe_request(http: HttpExchange, headers: Mapping[str, str | bytes]) -> dict[str, str | int]:
    """Attributes of an HTTP request, by the stable conventions (https://opentelemetry.io/docs/specs/semconv/http/).

    Without the query and other headers than those below, which may hold secrets.
    """
    attributes: dict[str, str | int] = {
        "url.scheme": http.scheme,
        "url.path": http.path[:MAX_CHARACTERS],
        "network.protocol.version": http.version,
    }
    host = urlsplit(f"//{headers.get('host', '')!s}"[:MAX_CHARACTERS])
    with suppress(ValueError):  # the client sent something that is no address
        attributes |= {"server.address": host.hostname} if host.hostname else {}
        attributes["server.port"] = host.port or http.port
    if http.client:
        attributes["client.address"] = http.client
    if agent := headers.get("user-agent"):
        attributes["user_agent.original"] = str(agent)[:MAX_CHARACTERS]
    return attributes


def _describe_method(name: str) -> dict[str, str | int]:
    """Attributes of "SERVICE/METHOD" of gRPC or "METHOD PATH" of HTTP, by OpenTelemetry's semantic conventions."""
    method, is_http, route = name.partition(" ")
    if is_http:
        return {"http.request.method": method, "http.route": route}
    service, _, method = name.partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
