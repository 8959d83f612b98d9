"""Network addresses: HOST:PORT."""

import ipaddress

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""The default address that servers listen on and clients connect to."""
MAX_PORT = 65_535


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
