"""Overlays on deploy/kubernetes: several installations in a namespace, names, images, other namespaces."""

import shutil
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import ROOT
from tests.support.kustomize import KUBERNETES, Manifest, build, load, one

Labels = dict[str, str]


@pytest.fixture(scope="module")
def above(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a copy of deploy/kubernetes with secrets; overlays are written beside the copy."""
    folder = tmp_path_factory.mktemp("overlays")
    shutil.copytree(KUBERNETES, folder / "deploy/kubernetes")
    for name in ("token.key", "statistics-url"):
        (folder / "deploy/kubernetes/secrets" / name).write_text("not used")
    return folder


def overlay(above: Path, name: str, *resources: str, **fields: Any) -> list[Manifest]:
    """The manifests of a kustomization with these parts."""
    folder = above / name
    folder.mkdir()
    paths = [f"../deploy/kubernetes/{each}" for each in resources]
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": paths}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**kustomization, "namespace": "vision", **fields}))
    return build(folder)


def pods(manifests: list[Manifest]) -> Iterator[tuple[Labels, Manifest]]:
    """Labels and spec of each pod."""
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Job"):
            template = manifest["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def selectors(manifests: list[Manifest]) -> Iterator[tuple[str, Labels]]:
    """All label selectors."""
    for manifest in manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "Deployment":
            yield kind, spec["selector"]["matchLabels"]
            for constraint in spec["template"]["spec"]["topologySpreadConstraints"]:
                yield "topologySpreadConstraints", constraint["labelSelector"]["matchLabels"]
        elif kind == "Service":
            yield kind, spec["selector"]
        elif kind == "PodDisruptionBudget":
            yield kind, spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            yield kind, spec["podSelector"]["matchLabels"]


def assert_apart(installations: dict[str, list[Manifest]]) -> None:
    """Assert that every selector matches the pods of its own installation and no others."""
    for name, manifests in installations.items():
        kinds = {kind for kind, _ in selectors(manifests)}
        assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "topologySpreadConstraints"} <= kinds
        servers = [labels for labels, _ in pods(manifests) if labels["app.kubernetes.io/component"] == "serving"]
        for kind, selector in selectors(manifests):
            if selector["app.kubernetes.io/component"] == "serving":
                assert all(selector.items() <= labels.items() for labels in servers), (name, kind)
    for (one_name, mine), (other_name, others) in permutations(installations.items(), 2):
        for kind, selector in selectors(mine):
            for labels, _ in pods(others):
                assert not selector.items() <= labels.items(), f"{kind} of {one_name} selects pods of {other_name}"
        named = [{(each["kind"], each["metadata"]["name"]) for each in manifests} for manifests in (mine, others)]
        assert not named[0] & named[1]


def test_installations_in_one_namespace_do_not_select_each_others_pods(above: Path) -> None:
    twice = overlay(above, "inner", "cpu", namePrefix="cars-")
    assert_apart(
        {
            "as it is": overlay(above, "plain", "cpu"),
            "pets": overlay(above, "prefixed", "cpu", namePrefix="pets-"),
            "on GPUs": overlay(above, "suffixed", "gpu", nameSuffix="-gpu"),
            "cars": twice,
            "cars, again": overlay(above, "outer", "../../inner", nameSuffix="-blue"),
            "labelled": overlay(
                above,
                "labelled",
                "cpu",
                namePrefix="birds-",
                labels=[{"includeSelectors": True, "pairs": {"app.kubernetes.io/instance": "birds"}}],
            ),
        }
    )
    engines = overlay(above, "engines", "engines")
    [(labels, _)] = pods(engines)
    assert not [kind for kind, selector in selectors(twice) if selector.items() <= labels.items()]
    loader = one(load(KUBERNETES / "loader.yaml"), "Pod", "pawserve-loader")
    assert not [kind for kind, selector in selectors(twice) if selector.items() <= loader["metadata"]["labels"].items()]


def test_names_of_volumes_and_secrets_get_the_prefix(above: Path) -> None:
    parts = ("namespace", "secrets", "engines", "gpu")
    for manifests in (overlay(above, "whole", *parts, namePrefix="pets-"), overlay(above, "apart", *parts)):
        there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
        for _, spec in pods(manifests):
            for volume in spec["volumes"]:
                if claim := volume.get("persistentVolumeClaim"):
                    assert ("PersistentVolumeClaim", claim["claimName"]) in there
                if secret := volume.get("secret"):
                    assert ("Secret", secret["secretName"]) in there
        [scaled] = [each for each in manifests if each["kind"] == "HorizontalPodAutoscaler"]
        assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in there


def test_another_namespace_holds_all_resources(above: Path) -> None:
    for manifest in overlay(above, "elsewhere", "namespace", "secrets", "engines", "gpu"):
        metadata = manifest["metadata"]
        assert (metadata["name"] if manifest["kind"] == "Namespace" else metadata["namespace"]) == "vision"


def test_images_can_be_pinned_by_digest_and_replicas_by_number(above: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    images = [{"name": "pawserve", "newName": "registry.example/pawserve", "digest": digest}]
    manifests = overlay(above, "pinned", "engines", "gpu", images=images, replicas=[{"name": "pawserve", "count": 3}])
    used = {container["image"] for _, spec in pods(manifests) for container in spec["containers"]}
    assert used == {f"registry.example/pawserve@{digest}"}
    assert one(manifests, "Deployment")["spec"]["replicas"] == 3


def test_deleting_an_installation_keeps_the_models_and_the_namespace() -> None:
    for name in ("cpu", "gpu"):
        kinds = {manifest["kind"] for manifest in build(KUBERNETES / name)}
        assert not kinds & {"Namespace", "PersistentVolumeClaim", "Secret", "Job"}


def test_the_overlay_of_the_docs_works_as_described(above: Path) -> None:
    docs = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    text = docs.split("```yaml\n")[1].split("```")[0]
    (above / "pets").mkdir()
    (above / "pets/kustomization.yaml").write_text(text)
    manifests = build(above / "pets")
    deployment = one(manifests, "Deployment", "pets-pawserve")
    assert "`pets-pawserve`" in docs
    assert deployment["metadata"]["labels"]["app.kubernetes.io/instance"] == "pets-pawserve"
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--model=pets"
    assert container["image"] == "registry.example/pawserve:0.1.0-cpu"
    assert one(manifests, "HorizontalPodAutoscaler", "pets-pawserve")["spec"]["maxReplicas"] == 40
    service = one(manifests, "Service", "pets-pawserve")["metadata"]
    assert f"dns:///{service['name']}.{service['namespace']}.svc:50051" in docs
