"""Network addresses: HOST:PORT, and the paths of Unix sockets."""

import errno
import ipaddress
import os
import socket
import stat

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""The default address that servers listen on and clients connect to."""
MAX_PORT = 65_535
UNIX = "unix:"
"""Begins the address of a Unix socket: unix:PATH."""
MAX_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""


def parse_address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, such as 0.0.0.0:50051 or [::1]:50051.

    Returns:
        The host, without the brackets of an IPv6 address, and the port, 0 to 65535.

    Raises:
        ValueError: for any other text.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    unix = host.partition(":")[0] in ("unix", "unix-abstract")  # gRPC would create a socket file
    if not host or unix or not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
        raise ValueError(
            f"{text!r} is not an address; write HOST:PORT, such as 0.0.0.0:50051 or [::1]:50051, with a port up to "
            f"{MAX_PORT}"
        )
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen_address(text: str) -> str:
    """Check HOST:PORT or unix:PATH.

    Raises:
        ValueError: for any other text, and for a path that is too long for a socket.
    """
    path = text.removeprefix(UNIX)
    if path == text:
        parse_address(text)
    elif not 1 <= len(os.fsencode(path)) <= MAX_PATH_BYTES or "," in path:
        raise ValueError(f"{text!r} is not an address; write unix:PATH with at most {MAX_PATH_BYTES} bytes, no comma")
    return text


def resolve(host: str) -> list[str]:
    """All IP addresses of a host name; an IP address as it is.

    The IPv6 loopback address is left out where this machine does not have it, since `localhost` often names it anyway.

    Raises:
        OSError: if the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    return [each for each in addresses if each != "::1" or len(addresses) == 1 or _has_ipv6_loopback()]


def check_free(address: str) -> None:
    """Check that a process may listen on HOST:PORT; nothing is known of port 0 and of Unix sockets.

    Raises:
        OSError: if it may not, or the host cannot be resolved; `filename` is the address that cannot be used.
    """
    if address.startswith(UNIX):
        return
    host, port = parse_address(address)
    for each in resolve(host) if port else ():
        try:
            probe_port(each, port)
        except OSError as error:
            raise OSError(error.errno, error.strerror, format_address(each, port)) from error


def probe_port(host: str, port: int) -> int:
    """Listen on an IP address for a moment, to learn whether anybody else does.

    Returns:
        The port, also where 0 has chosen one.

    Raises:
        OSError: if the address cannot be listened on.
    """
    with server_socket(host) as probe:
        probe.bind((host, port))
        probe.listen()
        chosen: int = probe.getsockname()[1]
        return chosen


def server_socket(host: str) -> socket.socket:
    """A socket to listen on an IP address."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier server may still be closing
    return made


def free_unix_path(path: str) -> None:
    """Remove the socket that an earlier server left at a path.

    Raises:
        OSError: if a server listens there, the path is something else than a socket, or it cannot be used.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket", path)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
        return
    raise OSError(errno.EADDRINUSE, "another server listens there", path)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address, so that what is sent there needs no TLS.

    Args:
        address: HOST:PORT, unix:PATH, or several as gRPC writes them: "ipv4:HOST:PORT,HOST:PORT"; all must be local.
    """
    if address.startswith(("ipv4:", "ipv6:")):
        return all(map(is_local, address.partition(":")[2].split(",")))
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
