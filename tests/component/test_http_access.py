"""Who may call over HTTP: tokens, roles, certificates, pages of other origins; and what operators see of the calls."""

import json
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.certificates import Authority, Pair
from tests.support.commands import run
from tests.support.http import Answer, ask, connect
from tests.support.images import RED
from tests.support.servers import HttpServerProcess, ObservedServer, http_server, observed_server, write_clients
from tests.support.waiting import eventually

TOKENS = {name: f"{name}-{'x' * 40}" for name in ("camera", "labeller", "operator")}
CLIENTS = f"""
predict         camera    {TOKENS["camera"]}
label           labeller  {TOKENS["labeller"]}
admin           operator  {TOKENS["operator"]}
"""
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServerProcess]:
    folder = tmp_path_factory.mktemp("guarded")
    write_bundle(folder / "models")
    clients = write_clients(folder / "clients", CLIENTS)
    with http_server(folder, "--clients", clients, "--http-origin", ORIGIN) as server:
        yield server


def as_(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS.get(name, name)}"}


def allowed(server: HttpServerProcess, name: str) -> dict[str, int]:
    """The status of each kind of request for a client."""
    labels = json.dumps({"labels": [{"token": "AAAA", "label": "red"}]}).encode()
    requests: dict[str, tuple[str, bytes | None]] = {
        "classify": ("/v1/classify", RED),
        "label": ("/v1/labels", labels),
        "statistics": ("/v1/statistics", None),
        "models": ("/v1/models", None),
        "infer": ("/v2/models/colours/infer", b'{"inputs": []}'),
        "metadata": ("/v2/models/colours", None),
        "load": ("/v2/repository/models/colours/load", b""),
        "health": ("/v2/health/ready", None),
    }
    return {kind: ask(server.url, path, body, as_(name)).status for kind, (path, body) in requests.items()}


def test_roles_allow_over_http_what_they_allow_over_grpc(guarded: HttpServerProcess) -> None:
    known = {"models": 200, "metadata": 200, "health": 200}
    nothing = {"classify": 403, "label": 403, "statistics": 403, "infer": 403, "load": 403}
    assert allowed(guarded, "camera") == {**known, **nothing, "classify": 200, "infer": 400}
    assert allowed(guarded, "labeller") == {**known, **nothing, "label": 200, "statistics": 200}
    assert set(allowed(guarded, "operator").values()) == {200, 400}
    assert allowed(guarded, "stranger") == {**dict.fromkeys((*known, *nothing), 401), "health": 200}


def test_a_missing_token_is_asked_for_before_the_body_is_read(guarded: HttpServerProcess) -> None:
    connection = connect(guarded.url)
    connection.putrequest("POST", "/v1/classify")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 401
    assert response.getheader("www-authenticate") == "Bearer"
    assert json.loads(response.read())["reason"] == "CREDENTIALS_MISSING"
    connection.close()


@pytest.mark.parametrize("value", ["", "Bearer", "Basic abc", TOKENS["camera"], "Bearer ÿ"])
def test_malformed_tokens_are_rejected(guarded: HttpServerProcess, value: str) -> None:
    answer = ask(guarded.url, "/v1/models", headers={"authorization": value})
    assert (answer.status, answer.reason) == (401, "CREDENTIALS_INVALID")
    assert "xxxx" not in answer.content.decode()


def test_pages_need_no_token_and_load_nothing_from_elsewhere(guarded: HttpServerProcess) -> None:
    page = ask(guarded.url, "/docs")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for text in (b"https://", b"http://", b"<script", b"style="):
        assert text not in page.content


def test_a_page_of_an_allowed_origin_gets_cors_headers_and_others_are_rejected(guarded: HttpServerProcess) -> None:
    preflight = ask(guarded.url, "/v1/classify", headers={"origin": ORIGIN}, method="OPTIONS")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = ask(guarded.url, "/v1/classify", RED, {**as_("camera"), "origin": ORIGIN})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    failed = ask(guarded.url, "/v1/classify", RED, {"origin": ORIGIN})
    assert (failed.status, failed.headers["access-control-allow-origin"]) == (401, ORIGIN)
    for origin in ("https://evil.example", "null", ORIGIN + ".evil.example", ORIGIN.upper()):
        for method, path, body in (
            ("POST", "/v1/classify", RED),
            ("OPTIONS", "/v1/classify", None),
            ("GET", "/docs", None),
        ):
            rejected = ask(guarded.url, path, body, {**as_("camera"), "origin": origin}, method=method)
            assert (rejected.status, rejected.reason) == (403, "ORIGIN_NOT_ALLOWED")
            assert "access-control-allow-origin" not in rejected.headers


def test_the_servers_own_page_may_call_it(guarded: HttpServerProcess) -> None:
    host = guarded.url.removeprefix("http://")
    own = {**as_("camera"), "origin": guarded.url, "host": host}
    assert ask(guarded.url, "/v1/classify", RED, own).status == 200


@pytest.mark.parametrize(("host", "status"), [
    ("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:8080", 200), ("app.example.com", 200),
    ("evil.example", 421), ("localhost.evil.example", 421), ("localhost@evil.example", 421), ("[", 421),
])  # fmt: skip
def test_a_local_server_does_not_answer_to_other_names(guarded: HttpServerProcess, host: str, status: int) -> None:
    assert ask(guarded.url, "/v2/health/live", headers={"host": host}).status == status


def context(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authority.path)
    if pair is not None:
        made.load_cert_chain(pair.certificate, pair.key)
    return made


def test_a_renewed_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    authority = Authority(tmp_path)
    pair = authority.issue("server", "first")
    with http_server(tmp_path, "--tls-cert", pair.certificate, "--tls-key", pair.key) as server:
        assert server.url.startswith("https://")

        def common_name() -> str:
            connection = connect(server.url, context(authority))
            connection.request("GET", "/v2/health/live")
            connection.getresponse().read()
            subject = connection.sock.getpeercert()["subject"]  # type: ignore[union-attr]
            connection.close()
            return str(subject[0][0][1])

        assert common_name() == "first"
        authority.issue("server", "second")
        assert eventually(lambda: common_name() == "second")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server.url, "/", context=ssl.create_default_context())


def test_client_certificates_have_roles(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    camera, stranger = authority.issue("camera", "camera"), authority.issue("stranger", "stranger")
    clients = write_clients(tmp_path / "clients", "predict camera certificate\n")
    tls = ("--tls-cert", pair.certificate, "--tls-key", pair.key, "--tls-client-ca", authority.path)
    with http_server(tmp_path, *tls, "--clients", clients) as server:

        def status(pair: Pair, path: str, body: bytes | None = None) -> int:
            return ask(server.url, path, body, context=context(authority, pair)).status

        assert status(camera, "/v1/classify", RED) == 200
        assert status(camera, "/v1/statistics") == 403
        assert status(stranger, "/v1/classify", RED) == 401
        assert status(stranger, "/v2/health/live") == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server.url, "/v2/health/live", context=context(authority))


def test_tokens_for_other_machines_need_tls_over_http_too(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ("--models", tmp_path / "models", "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    clients = write_clients(tmp_path / "clients", CLIENTS)
    finished = run("serving", "serve", *options, "--http", "0.0.0.0:0", "--clients", clients)
    assert finished.returncode == 1
    assert "0.0.0.0:0 would travel in plaintext" in finished.stderr


@pytest.mark.parametrize(
    "option", [("--http", "8080"), ("--http-origin", "app.example.com"), ("--http-origin", "http://a/b")]
)
def test_a_malformed_option_is_wrong_use(option: tuple[str, str]) -> None:
    finished = run("serving", "serve", *option)
    assert finished.returncode == 2
    assert option[1] in finished.stderr


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObservedServer, str]]:
    """A server that computes slowly and holds few views, and its URL."""
    folder = tmp_path_factory.mktemp("busy")
    write_bundle(folder / "models", slowness=30)
    limits = ("--max-views-in-flight", 4, "--max-views", 4, "--instances", 1, "--access-log")
    with observed_server(folder, *limits, "--http", "127.0.0.1:0") as server:
        yield server, server.process.printed(r"HTTP on (http[^\s;]+)")[1]


def in_background(url: str, path: str, answers: list[Answer], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=lambda: answers.append(ask(url, path, RED))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_too_many_views_in_flight_are_answered_with_429_and_when_to_retry(busy: tuple[ObservedServer, str]) -> None:
    _, url = busy
    answers: list[Answer] = []
    for thread in in_background(url, "/v1/classify?views=4", answers, 12):
        thread.join()
    rejected = [answer for answer in answers if answer.status == 429]
    assert rejected
    for answer in rejected:
        assert answer.reason == "QUEUE_FULL"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["retry_after_s"] > 0
    assert {answer.status for answer in answers} == {200, 429}


def test_a_request_that_takes_longer_than_its_timeout_is_ended(busy: tuple[ObservedServer, str]) -> None:
    _, url = busy
    answer = ask(url, "/v1/classify?views=4&timeout=0.001s", RED)
    assert (answer.status, answer.reason) == (504, "DEADLINE_EXCEEDED")
    assert "0.001" in answer.json()["detail"]


def test_calls_over_http_are_counted_and_logged_by_method_and_path(busy: tuple[ObservedServer, str]) -> None:
    server, url = busy
    answer = ask(url, "/v1/classify", RED, {"x-request-id": "mine-9"})
    assert answer.status == 200
    ask(url, "/v2/models/cars/versions/1")
    count = ("pawserve_requests_total", "pawserve_request_duration_seconds_count")
    assert server.metric(count[0], method="POST /v1/classify", code="OK")
    assert server.metric(count[1], method="POST /v1/classify")
    path = "GET /v2/models/{name}/versions/{version}"
    assert server.metric(count[0], method=path, code="NOT_FOUND") == 1
    ask(url, "/v1/anything")
    assert server.metric(count[0], method="unknown", code="NOT_FOUND") == 1
    assert server.metric("pawserve_requests_in_flight", method="POST /v1/classify") == 0
    assert eventually(lambda: "POST /v1/classify OK" in server.process.stderr and "mine-9" in server.process.stderr)


def test_a_shutdown_answers_requests_in_flight_and_ends_streams_of_events(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=30)
    with observed_server(tmp_path, "--instances", 1, "--http", "127.0.0.1:0") as server:
        url = server.process.printed(r"HTTP on (http[^\s;]+)")[1]
        watch = connect(url)
        watch.request("GET", "/v1/statistics/watch")
        events = watch.getresponse()
        assert events.readline() == b"event: statistics\n"
        answers: list[Answer] = []
        threads = in_background(url, "/v1/classify?views=4", answers, 1)
        assert eventually(lambda: bool(server.metric("pawserve_rows_in_flight", model="colours", version="1")))
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")]
        events.read()
        watch.close()
        assert server.process.wait() == 0


def test_several_processes_share_the_port_of_http(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with http_server(tmp_path, "--processes", 2) as server:
        for _ in range(8):
            assert ask(server.url, "/v1/classify", RED).status == 200
        assert ask(server.url, "/v2/models/colours/ready").status == 200
        taken = server.url.removeprefix("http://")
        options = ("--models", tmp_path / "models", "--state", tmp_path / "other", "--listen", "127.0.0.1:0")
        for more in ((), ("--processes", 2)):
            finished = run("serving", "serve", *options, "--http", taken, *more)
            assert finished.returncode == 1
            assert taken in finished.stderr
