"""Network addresses."""

import ipaddress

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where a server listens, and where clients look for it, unless told otherwise."""


def stays_on_this_machine(address: str) -> bool:
    """Whether HOST:PORT or unix:PATH is reached from this machine only, so that what is sent there needs no TLS.

    Several of them, as gRPC names them ("ipv4:HOST:PORT,HOST:PORT"), are if each is.
    """
    if address.startswith(("ipv4:", "ipv6:")):
        return all(map(stays_on_this_machine, address.partition(":")[2].split(",")))
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
