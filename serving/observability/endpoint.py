"""The HTTP endpoint that Prometheus scrapes."""

import socket
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from serving.system.network import format_address, parse_address, resolve

MAX_CONNECTIONS = 8
"""Most open connections; further ones are closed without a response."""
TIMEOUT_S = 10.0
"""Idle time after which a connection is closed."""


class MetricsEndpoint:
    """Serves GET /metrics, in the text format or OpenMetrics, as the scraper asks, until `close`.

    Args:
        registry: the metrics.
        listen: HOST:PORT, of which all addresses are used; port 0 takes a free one.

    Raises:
        ValueError: if `listen` is malformed.
        OSError: if it cannot listen there.
    """

    def __init__(self, registry: CollectorRegistry, listen: str) -> None:
        host, port = parse_address(listen)
        self._servers: list[_Server] = []
        try:
            for each in resolve(host):
                server = make_server(each, port, make_wsgi_app(registry), _Server, _Handler)
                self._servers.append(server)
                port = server.server_port
        except OSError:
            for server in self._servers:
                server.server_close()
            raise
        self.url = f"http://{format_address(host, port)}/metrics"
        """URL of the metrics."""
        self._threads = [Thread(target=each.serve_forever, name="metrics", daemon=True) for each in self._servers]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """Log no scrapes."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, up to MAX_CONNECTIONS."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

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
