"""The Ray Serve application: replicas with the API of the plain server.

    serve run deploy/ray/serve.yaml
    python -m serving ray --models models --state state --replicas 1-4

A replica is a `Server` that does not listen; Ray's ingress forwards calls to it. Replicas share the statistics database
and the key of the tokens, so any of them can record a label, and it is counted once. Needs the extra `ray`.
"""

import argparse
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import ray
from grpc_health.v1 import health_pb2_grpc
from ray import serve
from ray.serve import Application
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from serving.cli.serve_options import to_settings
from serving.image.decode import ignore_pillow_warnings
from serving.pb.pawserve.v1 import classifier_pb2_grpc
from serving.process import tune_interpreter
from serving.ray.ingress import CLASSIFIER, HEALTH
from serving.ray.methods import Methods
from serving.ray.options import MORE_VERSIONS, parse_configuration
from serving.ray.versions import LoadNamedVersions, VersionsOnDemand
from serving.server import Server
from serving.system.memory import keep_freed_memory

NAME = "pawserve"
DEPLOYMENT = "Classifier"
MAX_ONGOING_REQUESTS = 4096
"""Ray's limit; high, since a replica limits its own queue in views and its rejections have a retry delay."""


class ClassifierReplica:
    """One replica. Ray requires a method for each one of pawserve.v1.Classifier and grpc.health.v1.Health.

    Args:
        options: those of `python -m serving serve`, parsed.
        more_versions: most versions to load because clients name them.

    Raises:
        StartupError, ValueError: if it cannot start; Ray reports why and tries again.
    """

    async def __init__(self, options: Mapping[str, Any], more_versions: int) -> None:  # type: ignore[misc]  # Ray awaits it
        os.umask(0o077)
        settings = to_settings(argparse.Namespace(**options))
        reserved = ray.get_runtime_context().get_assigned_resources().get("CPU")  # Ray does not enforce it
        settings = replace(settings, options=replace(settings.options, cpu_limit=reserved or None))
        keep_freed_memory()
        ignore_pillow_warnings()
        self._server = Server(settings)
        await self._server.prepare()
        settings = self._server.settings
        versions = VersionsOnDemand(
            self._server.repository, self._server.watcher, settings.models, settings.wanted, more_versions
        )
        self._methods = Methods(self._add_services, [self._server.interceptor, LoadNamedVersions(versions)])
        self._server.mark_ready()
        tune_interpreter()

    def _add_services(self, methods: Methods) -> None:
        classifier_pb2_grpc.add_ClassifierServicer_to_server(self._server.classifier, methods)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._server.health, methods)

    async def Classify(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._answer("Classify", request, grpc_context)

    async def ClassifyStream(
        self, request: gRPCInputStream[bytes], grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        async for answer in self._answers("ClassifyStream", request, grpc_context):
            yield answer

    async def RecordLabels(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._answer("RecordLabels", request, grpc_context)

    async def GetStatistics(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._answer("GetStatistics", request, grpc_context)

    async def GetComparison(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._answer("GetComparison", request, grpc_context)

    async def WatchStatistics(self, request: bytes, grpc_context: RayServegRPCContext) -> AsyncIterator[Any]:
        async for answer in self._answers("WatchStatistics", request, grpc_context):
            yield answer

    async def ListModels(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._answer("ListModels", request, grpc_context)

    async def Check(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """The method of grpc.health.v1.Health."""
        return await self._methods.answer(f"/{HEALTH.full_name}/Check", request, grpc_context)

    async def check_health(self) -> None:
        """Raise if only a new replica can serve again: Ray calls this periodically."""
        if self._server.failure:
            raise RuntimeError(self._server.failure)

    async def __del__(self) -> None:
        """Stop the replica. Ray awaits this when no call is in flight any more."""
        self._server.mark_stopping()
        await self._server.close()

    async def _answer(self, method: str, request: bytes, context: RayServegRPCContext) -> Any:
        return await self._methods.answer(f"/{CLASSIFIER.full_name}/{method}", request, context)

    def _answers(self, method: str, request: Any, context: RayServegRPCContext) -> AsyncIterator[Any]:
        return self._methods.answers(f"/{CLASSIFIER.full_name}/{method}", request, context)


def application(options: Mapping[str, Any], more_versions: int = MORE_VERSIONS, **deployment: Any) -> Application:
    """Make the application.

    Args:
        options: those of `python -m serving serve`, parsed, for each replica.
        more_versions: most versions that a replica loads because clients name them.
        deployment: options of a Ray Serve deployment.
    """
    defaults = {"max_ongoing_requests": MAX_ONGOING_REQUESTS, "ray_actor_options": {"num_cpus": 1}}
    wrapped = serve.deployment(ClassifierReplica, name=DEPLOYMENT, **{**defaults, **deployment})
    return wrapped.bind(dict(options), more_versions)


def build(arguments: dict[str, Any]) -> Application:
    """Make the application of a configuration file from its `args`, which are `flags` and `more_versions`.

    Raises:
        ValueError: if `parse_configuration` rejects them.
    """
    options, more_versions = parse_configuration(arguments)
    options["listen"] = "0.0.0.0:0"  # Ray listens on all addresses, so plaintext tokens must be allowed explicitly
    return application(options, more_versions)
