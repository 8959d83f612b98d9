"""How clients and servers find each other, and what they report when they do not."""

import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from PIL import Image

from serving.client import Client, ClientError, Credentials, Retry
from serving.client.channel import describe_proxy, is_this_machine
from serving.settings import ConnectionLimits
from tests.support.bundles import write_bundle
from tests.support.certificates import Authority
from tests.support.commands import WarmProcess, free_port, main_of, run
from tests.support.images import encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually

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


def test_a_client_learns_why_a_tls_server_closes_its_connection(tmp_path: Path, authority: Authority) -> None:
    write_bundle(tmp_path / "models")
    pair, stranger = authority.issue("server"), Authority(tmp_path, "strangers").issue("stranger")
    options = ("--tls-cert", pair.certificate, "--tls-key", pair.key, "--tls-client-ca", authority.path)
    with running_server(tmp_path / "models", tmp_path / "state", *options) as address:
        closed = f"no pawserve answers at {address}: it closed the connection at once; "
        assert failure(address, Credentials()) == (f"{closed}it may use TLS: give --tls-ca, or Credentials(ca=…)")
        assert failure(address, Credentials(ca=authority.path)) == (
            f"{closed}it requires a client certificate: give --tls-cert and --tls-key, or Credentials(certificate=…, "
            "key=…)"
        )
        unknown = Credentials(ca=authority.path, certificate=stranger.certificate, key=stranger.key)
        assert failure(address, unknown) == (
            f"{closed}it does not accept the client certificate {stranger.certificate}: use one that is valid now and "
            "was issued by an authority of the server's --tls-client-ca"
        )


def test_a_plaintext_client_learns_that_the_server_may_use_tls(tls_address: str) -> None:
    assert "it may use TLS: give --tls-ca" in failure(tls_address, Credentials())


def test_a_tls_client_learns_that_the_server_uses_plaintext(address: str, authority: Authority) -> None:
    message = failure(address, Credentials(ca=authority.path))
    assert message == (
        f"no pawserve answers at {address}: it does not use TLS; leave out --tls and --tls-ca, or tls and ca of "
        "Credentials"
    )


def serve_pets_test(*options: str) -> int:
    """`serve`, where the name pets.test stands for two addresses of this machine."""
    known = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **named: Any) -> list[Any]:
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "pets.test" else [host]
        return [found for each in hosts for found in known(each, *arguments, **named)]

    with patch("socket.getaddrinfo", resolve):
        return main_of("serving", "serve", *options)


@contextmanager
def served(folder: Path, *options: object) -> Iterator[WarmProcess]:
    """A server of `folder` in which pets.test is known."""
    if not (folder / "models").exists():
        write_bundle(folder / "models")
    arguments = ("--models", folder / "models", "--state", folder / "state", *options)
    with closing(WarmProcess(serve_pets_test, *map(str, arguments))) as server:
        yield server


def test_a_server_listens_on_every_address_of_a_name(tmp_path: Path) -> None:
    with served(tmp_path, "--listen", "pets.test:0", "--metrics", "pets.test:0") as server:
        ready = server.printed(r"ready on pets\.test:(\d+): .*metrics on http://pets\.test:(\d+)/metrics")
        for host in ("127.0.0.1", "127.0.0.2"):
            with Client(f"{host}:{ready[1]}") as client:
                assert client.health() == "SERVING"
            with urllib.request.urlopen(f"http://{host}:{ready[2]}/metrics", timeout=LIMIT_S) as answer:
                assert b"pawserve_" in answer.read()


@pytest.mark.parametrize("taken", ["127.0.0.1", "127.0.0.2"])
def test_a_server_does_not_start_where_one_address_of_its_name_is_taken(tmp_path: Path, taken: str) -> None:
    with socket.socket() as other:
        other.bind((taken, 0))
        other.listen()
        port = other.getsockname()[1]
        with served(tmp_path, "--listen", f"pets.test:{port}") as server:
            assert server.wait() == 1
            assert (
                f"pawserve: cannot listen on pets.test:{port} ({taken}:{port}): Address already in use; stop the other "
                "server, or choose another address with --listen"
            ) in server.stderr


def test_a_name_that_cannot_be_resolved_prevents_the_start(tmp_path: Path) -> None:
    with served(tmp_path, "--listen", "pets.invalid:0") as server:
        assert server.wait() == 1
        assert "cannot listen on pets.invalid:0: " in server.stderr


def test_clients_and_commands_reach_a_server_on_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    address = f"unix:{tmp_path}/pawserve.sock"
    image = encoded(Image.new("RGB", (80, 60), "red"), "PNG")
    (tmp_path / "red.png").write_bytes(image)
    with served(tmp_path, "--listen", address) as server:
        server.printed(f"ready on {re.escape(address)}: models/colours/versions/1")
        with Client(address, credentials=Credentials(token="t" * 40)) as client:
            assert client.classify([image]).model == "models/colours/versions/1"
            assert [each.result.classes[0][0] for each in client.classify_many([image])] == ["red"]
        assert run("serving", "health", "--server", address).stdout.startswith("SERVING")
        assert " red" in run("serving", "predict", tmp_path / "red.png", "--server", address).stdout
        with served(tmp_path, "--listen", address, "--state", tmp_path / "second") as second:
            assert second.wait() == 1
            assert "another server listens there" in second.stderr
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert (tmp_path / "pawserve.sock").exists()
    with served(tmp_path, "--listen", address) as server:
        server.printed(f"ready on {re.escape(address)}")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_file_is_not_replaced_by_a_socket(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with served(tmp_path, "--listen", f"unix:{tmp_path}/notes") as server:
        assert server.wait() == 1
        assert "there is a file that is no socket" in server.stderr
    assert (tmp_path / "notes").read_text() == "mine"


@contextmanager
def pinging_channel(limits: ConnectionLimits) -> Iterator[list[grpc.ChannelConnectivity]]:
    """The states of an idle channel that pings a server with these limits every 50 ms."""
    server = grpc.server(ThreadPoolExecutor(1), options=limits.grpc_options())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options = (
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        yield states
        channel.unsubscribe(states.append)
    server.stop(None).wait()


def test_pings_of_idle_channels_are_limited_by_the_setting_and_allowed_from_five_seconds() -> None:
    assert ConnectionLimits().min_ping_interval_s < 5
    connected, closed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE
    with pinging_channel(ConnectionLimits(min_ping_interval_s=0.0)) as allowed:
        assert eventually(lambda: connected in allowed)
        with pinging_channel(ConnectionLimits()) as limited:  # both ping equally often, and this server closes
            assert eventually(lambda: limited[-1:] == [closed] and connected in limited)
        assert allowed[-1] == connected
