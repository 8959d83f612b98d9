"""TLS: certificates that are renewed while the server runs, and client certificates."""

import hashlib
import json
import socket
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from serving.client import Client, ClientError, Credentials, Prediction
from serving.security.settings import TlsFiles
from serving.security.tls import load
from tests.support.certificates import Authority, Pair
from tests.support.commands import run
from tests.support.images import RED
from tests.support.servers import cold_server, running_server, stoppable_server
from tests.support.waiting import LIMIT_S, eventually


def tls(pair: Pair) -> tuple[object, ...]:
    return ("--tls-cert", pair.certificate, "--tls-key", pair.key)


def served_certificate(address: str, authority: Authority) -> bytes:
    """SHA-256 of the certificate that a new connection gets."""
    host, port = address.split(":")
    pem = ssl.get_server_certificate((host, int(port)), ca_certs=str(authority.path), timeout=LIMIT_S)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()


def digest(pair: Pair) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())).digest()


def test_new_connections_get_a_renewed_certificate_and_open_ones_go_on(models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "first")
    credentials = Credentials(ca=authority.path)
    with (
        stoppable_server(models, tmp_path / "state", *tls(pair)) as (server, address),
        Client(address, credentials=credentials) as old,
    ):
        assert isinstance(old.classify([RED]).results[0], Prediction)
        assert served_certificate(address, authority) == digest(pair)

        pair.key.write_text("half of a renewal")  # not usable: the server keeps the earlier certificate
        assert eventually(lambda: served_certificate(address, authority) and "cannot be used" in server.stderr)
        with Client(address, credentials=credentials) as other:
            assert isinstance(other.classify([RED]).results[0], Prediction)

        authority.issue("server", "second")
        assert eventually(lambda: served_certificate(address, authority) == digest(pair))
        assert isinstance(old.classify([RED]).results[0], Prediction)


def test_a_client_without_tls_or_with_another_authority_gets_no_response(models: Path, tmp_path: Path) -> None:
    pair, stranger = Authority(tmp_path).issue("server"), Authority(tmp_path, "stranger")
    with running_server(models, tmp_path / "state", *tls(pair)) as address:
        for credentials in (Credentials(), Credentials(ca=stranger.path)):
            with Client(address, credentials=credentials, timeout_s=5) as client, pytest.raises(ClientError) as caught:
                client.list_models()
            assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_handshakes_that_fail_leave_no_lines_that_are_not_json(models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    options = (*tls(authority.issue("server")), "--tls-client-ca", authority.path, "--log-format", "json")
    with cold_server(models, tmp_path / "state", *options, stderr=subprocess.PIPE) as (server, address):
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as plaintext:
            plaintext.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while plaintext.recv(1024):  # until the server has closed it
                pass
        server.terminate()
        _, log = server.communicate(timeout=LIMIT_S)
    assert log
    assert all(json.loads(line)["level"] in ("info", "warning") for line in log.splitlines())


def test_mutual_tls_accepts_only_certificates_of_the_client_authority(models: Path, tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    pair, friend, foe = servers.issue("server"), clients.issue("friend", "friend"), servers.issue("foe", "foe")
    arguments = (*tls(pair), "--tls-client-ca", clients.path)
    with running_server(models, tmp_path / "state", *arguments) as address:
        good = Credentials(ca=servers.path, certificate=friend.certificate, key=friend.key)
        with Client(address, credentials=good) as client:
            assert client.health() == "SERVING"
        bad = Credentials(ca=servers.path, certificate=foe.certificate, key=foe.key)
        for credentials in (bad, Credentials(ca=servers.path)):
            with Client(address, credentials=credentials, timeout_s=5) as client, pytest.raises(ClientError):
                client.health()


def test_a_client_certificate_gives_the_roles_of_its_name(models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, camera, nobody = authority.issue("server"), authority.issue("camera", "gate-7"), authority.issue("other", "x")
    alias = authority.issue("alias", "whatever", names=("robot.example",))
    clients_file = tmp_path / "clients_file"
    clients_file.write_text("predict gate-7 certificate\nlabel robot.example certificate\n")
    arguments = (*tls(pair), "--tls-client-ca", authority.path, "--auth-tokens", clients_file)
    with running_server(models, tmp_path / "state", *arguments) as address:

        def client(who: Pair) -> Client:
            return Client(address, credentials=Credentials(ca=authority.path, certificate=who.certificate, key=who.key))

        with client(camera) as may_predict, client(alias) as may_label, client(nobody) as may_nothing:
            (result,) = may_predict.classify([RED]).results
            assert isinstance(result, Prediction)
            assert may_label.record_labels([(result.token, "red")])
            for call, code in (
                (lambda: may_predict.record_labels([(result.token, "red")]), grpc.StatusCode.PERMISSION_DENIED),
                (lambda: may_label.classify([RED]), grpc.StatusCode.PERMISSION_DENIED),
                (lambda: may_nothing.classify([RED]), grpc.StatusCode.UNAUTHENTICATED),
            ):
                with pytest.raises(ClientError) as caught:
                    call()
                assert caught.value.code == code


def test_commands_use_tls_by_options_and_by_environment(models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    with running_server(models, tmp_path / "state", *tls(pair)) as address:
        by_option = run("serving", "health", "--server", address, "--tls-ca", authority.path)
        assert (by_option.returncode, by_option.stdout.split()[0]) == (0, "SERVING")
        by_environment = run("serving", "health", "--server", address, PAWSERVE_TLS_CA=str(authority.path))
        assert by_environment.returncode == 0
        missing = run("serving", "health", "--server", address, "--tls-ca", tmp_path / "nowhere")
        assert missing.returncode == 1
        assert "nowhere cannot be read" in missing.stderr


def start(models: Path, tmp_path: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and log of a server that does not start."""
    finished = run(
        "serving", "serve", "--listen", "127.0.0.1:0", "--models", models, "--state", tmp_path / "state", *arguments
    )
    assert "Traceback" not in finished.stderr
    assert "PRIVATE" not in finished.stderr
    return finished.returncode, finished.stderr


def test_unusable_certificates_prevent_the_start_with_the_reason(models: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other, over = authority.issue("one"), authority.issue("other"), authority.issue("over", days=-0.1)
    empty = tmp_path / "empty"
    empty.touch()
    for certificate, key, reason in (
        (one.certificate, other.key, "other.key does not belong to"),
        (over.certificate, over.key, "was valid until"),
        (tmp_path / "nowhere", one.key, "nowhere cannot be read"),
        (empty, one.key, "holds no certificate in PEM"),
        (one.certificate, empty, "holds no usable private key"),
    ):
        code, errors = start(models, tmp_path, "--tls-cert", certificate, "--tls-key", key)
        assert code == 1
        assert reason in errors


def test_incomplete_tls_options_are_wrong_usage(models: Path, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("one")
    assert start(models, tmp_path, "--tls-cert", pair.certificate)[0] == 2
    assert start(models, tmp_path, "--tls-client-ca", pair.certificate)[0] == 2
    assert start(models, tmp_path, "--keepalive", 0)[0] == 2


def test_a_certificate_that_expires_soon_is_logged(models: Path, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server", days=3)
    with stoppable_server(models, tmp_path / "state", *tls(pair)) as (server, _):
        assert "the certificate of CN=server expires at" in server.stderr


def test_a_key_that_some_clients_reject_is_logged_and_another_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    for file, key in (
        ("edwards", ed25519.Ed25519PrivateKey.generate()),
        ("p521", ec.generate_private_key(ec.SECP521R1())),
        ("p384", ec.generate_private_key(ec.SECP384R1())),
    ):
        pair = authority.issue(file, key=key)
        load(TlsFiles(certificate=pair.certificate, key=pair.key))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert all(name in warning for name, warning in zip(("edwards.key", "p521.key"), warnings, strict=True))


def test_development_certificates_work_for_this_machine_and_the_names_given(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "tls"
    made = run("serving", "dev-certificate", "--out", out, "--name", "pets.example", "--name", "10.0.0.7")
    assert made.returncode == 0, made.stderr
    assert f"--tls-cert {out}/server.pem --tls-key {out}/server.key" in made.stdout
    assert (out / "server.key").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "server.key", "server.pem"]
    names = x509.load_pem_x509_certificate((out / "server.pem").read_bytes()).extensions
    alternatives = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == ["localhost", "pets.example"]
    assert [str(each) for each in alternatives.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.7"]
    pair = Pair(out / "server.pem", out / "server.key")
    with running_server(models, tmp_path / "state", *tls(pair)) as address:
        for host in ("127.0.0.1", "localhost"):
            server = f"{host}:{address.rpartition(':')[2]}"
            told = run("serving", "health", "--server", server, "--tls-ca", out / "ca.pem")
            assert told.stdout.startswith("SERVING"), told.stderr
    again = run("serving", "dev-certificate", "--out", out)
    assert (again.returncode, again.stdout) == (1, "")
    assert "give a new or an empty folder" in again.stderr
    assert run("serving", "dev-certificate", "--out", tmp_path / "other", "--name", "a:1").returncode == 1
    assert not (tmp_path / "other").exists()
