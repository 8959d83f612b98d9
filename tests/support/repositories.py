"""Repositories of models whose folder is watched."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from serving.bundle.folder import find_bundles
from serving.bundle.manifest import Manifest
from serving.bundle.shadow_version import ShadowVersion
from serving.models.loader import load_model
from serving.models.repository import ModelRepository
from serving.models.watcher import ModelWatcher
from tests.support.bundles import OPTIONS
from tests.support.waiting import LIMIT_S


def watched(
    models: Path,
    test: Callable[[ModelRepository, ModelWatcher], Awaitable[None]],
    *wanted: str,
    register: Callable[[Manifest], None] = lambda manifest: None,
    keep: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
    shadows: Sequence[ShadowVersion] = (),
) -> None:
    """Run a test with a repository that serves what is wanted, and its watcher."""
    repository = ModelRepository(shadows)
    for bundle in find_bundles(models, wanted, keep, shadows):
        repository.add(load_model(bundle, OPTIONS))

    async def run() -> None:
        await test(repository, ModelWatcher(repository, models, wanted, OPTIONS, register, keep, clock))

    try:
        asyncio.run(asyncio.wait_for(run(), LIMIT_S))
    finally:
        repository.close()


def served(repository: ModelRepository) -> list[str]:
    return [f"{model.manifest.name}/{model.manifest.version}" for model in repository.models]
