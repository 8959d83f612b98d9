"""Replicas on Ray, as far as they can be tested without Ray; tests/ray has the rest (`make ray-check`)."""

import argparse
import asyncio
import importlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2

from serving.cli.errors import UsageError
from serving.cli.serve_options import to_settings
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc
from serving.ray import command
from serving.ray.ingress import CLASSIFIER, SERVICER_FUNCTIONS
from serving.ray.methods import Methods, NoMessage
from serving.ray.options import parse_configuration, parse_flags
from serving.server import Server
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT

CONFIGURATION = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())


class RayContext:
    """The context that Ray passes to a replica with a call, as its documentation describes it."""

    def __init__(self) -> None:
        self.set: dict[str, Any] = {"trailing": []}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("x-request-id", "web-17")]

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1234"

    def code(self) -> grpc.StatusCode | None:
        return self.set.get("code")

    def set_code(self, code: grpc.StatusCode) -> None:
        self.set["code"] = code

    def set_details(self, details: str) -> None:
        self.set["details"] = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None:
        self.set["trailing"] = metadata


async def as_stream(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def test_calls_have_the_responses_and_statuses_of_the_plain_server(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    flags = ["--models", str(tmp_path / "models"), "--state", str(tmp_path / "state")]

    async def call() -> None:
        server = Server(to_settings(argparse.Namespace(**parse_flags(flags))))
        await server.prepare()
        server.mark_ready()
        methods = Methods(
            lambda methods: classifier_pb2_grpc.add_ClassifierServicer_to_server(server.classifier, methods),
            [server.interceptor],
        )
        try:
            models = await methods.answer("/pawserve.v1.Classifier/ListModels", b"", context := RayContext())
            assert [model.name for model in models.models] == ["models/colours/versions/1"]
            assert ("x-request-id", "web-17") in context.set["trailing"]

            answer = await methods.answer("/pawserve.v1.Classifier/Classify", b"\xff", context := RayContext())
            assert isinstance(answer, NoMessage)
            assert context.code() == grpc.StatusCode.INVALID_ARGUMENT
            status = status_pb2.Status.FromString(dict(context.set["trailing"])["grpc-status-details-bin"])
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert info.reason == "MESSAGE_INVALID"

            requests = [pb.ClassifyStreamRequest(id=str(number)).SerializeToString() for number in range(300)]
            stream = methods.answers("/pawserve.v1.Classifier/ClassifyStream", as_stream(*requests), RayContext())
            assert {answer.id async for answer in stream} == {str(number) for number in range(300)}

            stream = methods.answers(
                "/pawserve.v1.Classifier/WatchStatistics",
                pb.WatchStatisticsRequest(model="cats").SerializeToString(),
                context := RayContext(),
            )
            assert [answer async for answer in stream] == []
            assert context.code() == grpc.StatusCode.INVALID_ARGUMENT
        finally:
            server.mark_stopping()
            await server.close()

    asyncio.run(call())


def test_the_ingress_forwards_every_method_of_the_classifier() -> None:
    registered: dict[str, Any] = {}

    class Ingress:
        def add_generic_rpc_handlers(self, handlers: tuple[object]) -> None:
            pass

        def add_registered_method_handlers(self, service: str, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
            registered.update({f"{service}/{name}": handler for name, handler in handlers.items()})

    for path in SERVICER_FUNCTIONS:
        module, _, name = path.rpartition(".")
        getattr(importlib.import_module(module), name)(object(), Ingress())
    for method in CLASSIFIER.methods:
        handler = registered.pop(f"{CLASSIFIER.full_name}/{method.name}")
        assert handler.request_streaming == method.client_streaming
        assert handler.response_streaming == method.server_streaming
    assert list(registered) == ["grpc.health.v1.Health/Check"]


def test_the_configuration_file_names_the_code() -> None:
    assert tuple(CONFIGURATION["grpc_options"]["grpc_servicer_functions"]) == SERVICER_FUNCTIONS
    [application] = CONFIGURATION["applications"]
    assert application["import_path"] == "serving.ray.app:build"
    assert parse_flags(application["args"]["flags"])["models"] == Path("/models")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--modles", "/models"], "unrecognized arguments: --modles"),
        (["--max-views", "many"], "'many' is not a whole number"),
        (["--tls-cert", "cert.pem"], "--tls-cert is not supported on Ray"),
        (["--max-connection-age", "5"], "--max-connection-age is not supported on Ray"),
        (["--access-log"], "--access-log is not supported on Ray"),
        (["--no-reflection"], "enable_reflection: false in grpc_options"),
    ],
)
def test_flags_that_a_replica_does_not_support_are_rejected(flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_flags(flags)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flag": []}, "flags and more_versions are allowed"),
        ({"flags": "--models /models"}, r"flags is '--models /models'; it must be a list"),
        ({"flags": None}, "flags is None; it must be a list"),
        ({"more_versions": 0}, "more_versions is 0; it must be a whole number from 1"),
        ({"more_versions": "three"}, "more_versions is 'three'"),
        ({"more_versions": True}, "more_versions is True"),
    ],
)
def test_arguments_of_another_type_in_a_configuration_file_are_rejected(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse_configuration(arguments)


def test_flags_in_a_configuration_file_may_be_numbers() -> None:
    options, more_versions = parse_configuration({"flags": ["--max-views", 7]})
    assert (options["max_views"], more_versions) == (7, 3)


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        ("unix:/run/pawserve.sock", "Ray's ingress has no Unix sockets: give HOST:PORT"),
        ("127.0.0.1:0", "needs a port other than 0"),
        ("pets.test:50051", "pets.test has the addresses 127.0.0.1 and 127.0.0.2, and Ray's ingress listens on one"),
        ("nowhere.test:50051", "nowhere.test cannot be resolved"),
    ],
)
def test_addresses_that_ray_cannot_listen_on_are_wrong_use(
    listen: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host == "nowhere.test":
            raise socket.gaierror("unknown")
        hosts = ["127.0.0.1", "127.0.0.2"] if host == "pets.test" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in hosts]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # as if Ray were installed
    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    with pytest.raises(UsageError, match=complaint):
        command.run(parser.parse_args(["--listen", listen]))
