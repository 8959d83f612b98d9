"""Addresses are parsed in one place, and it is known which of them only this machine can reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.system.network import format_address, is_local, parse_address


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.ip_addresses().map(str), st.integers(0, 65_535))
def test_what_is_formatted_is_parsed_again(host: str, port: int) -> None:
    if host in ("unix", "unix-abstract"):
        return
    assert parse_address(format_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "host", ":50051", "[]:50051", "host:", "host:x", "host:-1", "host:65536", "host:٣", "host: 1", "unix:/a:1"]
    + ["unix:1"],
)
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address; write HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/pawserve.sock", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", True),
        ("ipv6:[::1]:1,[::1]:2", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("10.0.0.1:50051", False),
        ("[2001:db8::1]:50051", False),
        ("localhost.example:50051", False),
        ("dns:///localhost:50051", False),
    ],
)
def test_only_loopback_addresses_and_sockets_are_local(address: str, local: bool) -> None:
    assert is_local(address) is local
