"""The HTTP endpoint that Prometheus scrapes."""

import socket
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from serving.system.network import format_address, parse_address

MAX_CONNECTIONS = 8
"""Most open connections; further ones are closed without a response."""
TIMEOUT_S = 10.0
"""Idle time after which a connection is closed."""


class MetricsEndpoint:
    """Serves GET /metrics, in the text format or OpenMetrics, as the scraper asks, until `close`.

    Args:
        registry: the metrics.
        listen: HOST:PORT; port 0 takes a free one.

    Raises:
        ValueError: if `listen` is malformed.
        OSError: if it cannot listen there.
    """

    def __init__(self, registry: CollectorRegistry, listen: str) -> None:
        host, port = parse_address(listen)
        ((family, *_), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        server_class = type("_FamilyServer", (_Server,), {"address_family": family})
        self._server: WSGIServer = make_server(host, port, make_wsgi_app(registry), server_class, _Handler)
        self.url = f"http://{format_address(host, self._server.server_port)}/metrics"
        """Where the metrics are."""
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """Log no scrapes."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, up to MAX_CONNECTIONS."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._free = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing when a scraper disconnects or times out."""
