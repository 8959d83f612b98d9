"""A port that several processes of one server listen on (SO_REUSEPORT), reserved for them.

With SO_REUSEPORT a second server on the same port would start without an error and silently take a part of the
connections. So a port is first opened without it, which fails if anybody listens there, and then bound with it for as
long as the supervisor runs, which keeps it while processes restart. A name in the abstract namespace of Unix sockets,
which belongs to the network namespace as ports do, keeps two supervisors apart that start at the same moment.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from serving.system.network import format_address, parse_address, probe_port, resolve, server_socket


@contextmanager
def reserved_port(listen: str) -> Iterator[str]:
    """Reserve HOST:PORT on all addresses of the host; yield it with the port that was chosen if it is 0.

    Raises:
        OSError: if the port is in use, or an address is not one of this machine's; `filename` is that address.
    """
    host, port = parse_address(listen)
    with ExitStack() as cleanup:
        for each in resolve(host):
            try:
                port = probe_port(each, port)
                cleanup.enter_context(_lock(each, port))
                cleanup.enter_context(_hold(each, port))
            except OSError as error:
                reason = error.strerror
                if error.errno == errno.EADDRINUSE:
                    reason = "the port is in use"
                raise OSError(error.errno, reason, format_address(each, port)) from error
        yield format_address(host, port)


def _hold(host: str, port: int) -> socket.socket:
    """Keep the port without listening: the kernel passes connections to sockets that listen only."""
    holder = server_socket(host)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind((host, port))
    return holder


def _lock(host: str, port: int) -> socket.socket:
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0pawserve {format_address(host, port)}")
    except OSError:
        lock.close()
        raise
    return lock
