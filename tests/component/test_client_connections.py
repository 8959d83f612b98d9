"""How clients reach servers, and what they report when they do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from serving.client import Client, ClientError, Credentials, Retry
from serving.client.channel import describe_proxy, is_this_machine
from tests.support.bundles import write_bundle
from tests.support.certificates import Authority
from tests.support.commands import free_port, run
from tests.support.images import encoded
from tests.support.servers import running_server

ONCE = Retry(attempts=1)
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_address(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    """The address of a server with a certificate for localhost and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    write_bundle(folder / "models")
    pair = authority.issue("server")
    options = ("--tls-cert", pair.certificate, "--tls-key", pair.key)
    with running_server(folder / "models", folder / "state", *options) as address:
        yield address


def failure(address: str, credentials: Credentials) -> str:
    with Client(address, credentials=credentials, retry=ONCE) as client, pytest.raises(ClientError) as caught:
        client.health()
    return caught.value.message


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_calls_to_this_machine_use_no_proxy(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    (tmp_path / "red.png").write_bytes(encoded(Image.new("RGB", (80, 60), "red"), "PNG"))
    port = address.rpartition(":")[2]
    assert run("serving", "health", "--server", address).stdout.startswith("SERVING")
    assert run("serving", "health", "--server", f"dns:///localhost:{port}").stdout.startswith("SERVING")
    assert "red" in run("serving", "predict", tmp_path / "red.png", "--server", address).stdout


def test_an_error_of_another_machine_names_the_proxy_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy}")
    message = failure("192.0.2.1:50051", Credentials())
    assert message == (
        f"no pawserve answers at 192.0.2.1:50051 (Connection refused) through the proxy http://{proxy} (environment "
        "variable http_proxy); name the server in no_proxy to connect directly"
    )


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.8.8:50051", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("0.0.0.0:50051", True),
        ("[::]:50051", True),
        ("unix:/run/pawserve.sock", True),
        ("dns:///localhost:50051", True),
        ("ipv4:10.0.0.1:1,127.0.0.1:2", True),
        ("10.0.0.1:50051", False),
        ("dns:///pawserve:50051", False),
        ("dns://127.0.0.1/pawserve:50051", False),
    ],
)
def test_targets_of_this_machine_are_known(target: str, local: bool) -> None:
    assert is_this_machine(target) is local


@pytest.mark.parametrize(
    ("no_proxy", "proxied"),
    [("", True), ("example.org", False), (" .ORG", False), ("example.com,10.0.0.0/8", True), ("other", True)],
)
def test_servers_that_no_proxy_names_have_no_proxy(
    no_proxy: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert bool(describe_proxy("pets.example.org:50051")) is proxied
    assert bool(describe_proxy("10.1.2.3:50051")) is ("10.0.0.0/8" not in no_proxy)


def test_an_untrusted_certificate_is_reported_as_such(tls_address: str, tmp_path: Path) -> None:
    message = failure(tls_address, Credentials(ca=Authority(tmp_path, "other").path))
    assert message == (
        f"no pawserve answers at {tls_address}: its TLS certificate is not trusted (unable to get local issuer "
        "certificate); give the authority that issued it with --tls-ca, or Credentials(ca=…)"
    )


def test_a_certificate_for_another_name_is_reported_as_such(tmp_path: Path, authority: Authority) -> None:
    write_bundle(tmp_path / "models")
    pair = authority.issue("elsewhere", names=("pets.example.org",), for_this_machine=False)
    options = ("--tls-cert", pair.certificate, "--tls-key", pair.key)
    with running_server(tmp_path / "models", tmp_path / "state", *options) as address:
        assert failure(address, Credentials(ca=authority.path)) == (
            f"no pawserve answers at {address}: its TLS certificate is not for this name; use a name or address that "
            "the certificate has"
        )


def test_a_plaintext_client_learns_that_the_server_may_use_tls(tls_address: str) -> None:
    message = failure(tls_address, Credentials())
    assert message == (
        f"no pawserve answers at {tls_address}: it closed the connection at once: if it uses TLS, give --tls-ca, or "
        "Credentials(ca=…); if it requires client certificates, --tls-cert and --tls-key too"
    )


def test_a_tls_client_learns_that_the_server_uses_plaintext(address: str, authority: Authority) -> None:
    message = failure(address, Credentials(ca=authority.path))
    assert message == (
        f"no pawserve answers at {address}: it does not use TLS; leave out --tls and --tls-ca, or tls and ca of "
        "Credentials"
    )
