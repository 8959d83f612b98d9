"""Which addresses a secret may travel to in plaintext: those that no other machine is on the way to."""

import pytest

from serving.system.network import stays_on_this_machine


@pytest.mark.parametrize(
    ("address", "stays"),
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
def test_only_this_machine_s_own_addresses_stay_on_it(address: str, stays: bool) -> None:
    assert stays_on_this_machine(address) is stays
