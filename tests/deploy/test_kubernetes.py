"""What Kustomize makes of k8s/: valid by the published schemas, closed by the rules of restricted pods, and true."""

import copy
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.settings import Settings
from tests.deploy.commands import ROOT, parse_by_vllm, run, tool

pytestmark = pytest.mark.deploy

VERSIONS = ["1.36", "1.37"]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
ROLLED_OUT = [name for name in OVERLAYS if name != "cpu-jobs"]
"""Those whose Redraft is a Deployment. One whose jobs are in a file ends before it is replaced."""
LEADER_WORKER_SET = json.loads(Path(__file__).with_name("leaderworkerset.json").read_text())
POSTGRES_CLUSTER = json.loads(Path(__file__).with_name("cloudnativepg.json").read_text())
# Kinds whose published schemas come as models, and the modules of those.
MODELS = {"PodMonitor": "cloudcoil.models.prometheus_operator.v1", "ScaledObject": "cloudcoil.models.keda.v1alpha1"}

Object = dict[str, Any]


@cache
def kustomized(overlay: str) -> str:
    return run(tool("kubectl"), "kustomize", f"k8s/overlays/{overlay}")


def objects(overlay: str) -> list[Object]:
    return list(yaml.safe_load_all(kustomized(overlay)))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [found for found in objects(overlay) if found["kind"] in kinds]


def templates(found: Object) -> Iterator[Object]:
    """The pod templates in an object."""
    match found["kind"]:
        case "Deployment" | "StatefulSet":
            yield found["spec"]["template"]
        case "LeaderWorkerSet":
            group = found["spec"]["leaderWorkerTemplate"]
            yield from (group["leaderTemplate"], group["workerTemplate"])


def pods(overlay: str) -> list[Object]:
    return [template["spec"] for found in objects(overlay) for template in templates(found)]


def validate(found: Object, version: str) -> None:
    """Raise if the object is not what its kind's schema says, or has a field that the schema does not know."""
    import kubernetes_validate  # here, for only `make check-deploy` has it

    kind = found["kind"]
    if kind in MODELS:
        read = getattr(importlib.import_module(MODELS[kind]), kind).model_validate(found)
        known = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if known != found:  # a model drops what it does not know
            raise ValueError(f"of {found} only {known} is known")
    elif kind == "LeaderWorkerSet":
        jsonschema.validate(found, LEADER_WORKER_SET)
        for template in templates(found):
            pod = {**template, "apiVersion": "v1", "kind": "Pod"}
            kubernetes_validate.validate(pod, version, strict=True)
    elif kind == "Cluster":
        jsonschema.validate(found, POSTGRES_CLUSTER)
    else:
        kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    for found in objects(overlay):
        validate(found, version)


@pytest.mark.parametrize(
    ("overlay", "kind", "path"),
    [
        ("remote", "Deployment", ["spec", "template", "spec"]),
        ("remote", "HorizontalPodAutoscaler", ["spec"]),
        ("remote", "NetworkPolicy", ["spec"]),
        ("remote", "PodMonitor", ["spec"]),
        ("gpu", "ScaledObject", ["spec"]),
        ("gpu", "ScaledObject", ["spec", "scaleTargetRef"]),
        ("cpu-jobs", "StatefulSet", ["spec"]),
        ("remote-jobs", "Cluster", ["spec", "storage"]),
        ("multi-node", "LeaderWorkerSet", ["spec", "leaderWorkerTemplate"]),
        ("multi-node", "LeaderWorkerSet", ["spec", "leaderWorkerTemplate", "workerTemplate", "spec"]),
    ],
)
def test_a_field_that_is_unknown_is_found(overlay: str, kind: str, path: list[str]) -> None:
    found = copy.deepcopy(of_kind(overlay, kind)[0])
    part = found
    for name in path:
        part = part[name]
    part["replicaz"] = 2
    with pytest.raises(Exception, match="replicaz"):
        validate(found, VERSIONS[-1])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    assert pods(overlay)
    for pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
            assert {"memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
        for volume in pod["volumes"]:
            assert {"name", "secret", "emptyDir", "persistentVolumeClaim"} >= volume.keys()
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": None}), volume


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned(overlay: str) -> None:
    for pod in pods(overlay):
        for container in pod["containers"]:
            assert re.fullmatch(r"redraft-(cpu|gpu):\d+\.\d+\.\d+", container["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_only_referred_to(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    for pod in pods(overlay):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                secret = re.search("TOKEN|KEY|PASSWORD", variable["name"])
                assert not secret or variable["value"].startswith("/run/secrets/"), variable["name"]


def settings(overlay: str) -> Mapping[str, str]:
    [found] = of_kind(overlay, "ConfigMap")
    data: dict[str, str] = found["data"]
    return data


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_takes_its_settings(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(overlay).items():
        monkeypatch.setenv(name, value)
    keys = tmp_path / "api_keys"
    keys.write_text(f"alice:{'0' * 64}\n")
    monkeypatch.setenv("REDRAFT_API_KEYS_FILE", str(keys))
    monkeypatch.setenv("REDRAFT_HOST", "0.0.0.0")  # as the image has it
    assert Settings().keys


@pytest.mark.parametrize("overlay", ROLLED_OUT)
def test_redraft_is_replaced_without_a_gap(overlay: str) -> None:
    [deployment] = of_kind(overlay, "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(settings(overlay)["REDRAFT_DRAIN_SECONDS"])
    assert before >= 2 * container["readinessProbe"]["periodSeconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 10  # what the engine's end takes
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] < deployment["spec"]["progressDeadlineSeconds"]


def test_one_replica_at_most_has_the_file_of_jobs() -> None:
    assert of_kind("cpu-jobs", "Deployment", "HorizontalPodAutoscaler", "ScaledObject") == []
    [found] = of_kind("cpu-jobs", "StatefulSet")
    [claim] = found["spec"]["volumeClaimTemplates"]
    [pod] = pods("cpu-jobs")
    [container] = pod["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert found["spec"]["replicas"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert Path(settings("cpu-jobs")["REDRAFT_STORE"]).parent == Path(folders[claim["metadata"]["name"]])


def test_replicas_share_the_postgres_that_they_may_reach() -> None:
    [cluster] = of_kind("remote-jobs", "Cluster")
    [deployment] = of_kind("remote-jobs", "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [store] = [variable for variable in container["env"] if variable["name"] == "REDRAFT_STORE"]
    name = cluster["metadata"]["name"]
    pods_of_it = {"podSelector": {"matchLabels": {"cnpg.io/cluster": name}}}
    # The operator's names: the Secret of a cluster's application, and the label of its pods.
    assert store["valueFrom"]["secretKeyRef"] == {"name": f"{name}-app", "key": "uri"}
    assert [
        policy["metadata"]["name"]
        for policy in of_kind("remote-jobs", "NetworkPolicy")
        if policy["spec"]["podSelector"].get("matchLabels") == {"app.kubernetes.io/name": "redraft"}
        and any(pods_of_it in rule.get("to", []) for rule in policy["spec"].get("egress", []))
    ] == ["redraft-store"]


@pytest.mark.parametrize(("overlay", "kind"), [("remote", "ScaledObject"), ("multi-node", "LeaderWorkerSet")])
def test_redraft_knows_every_server_that_may_run(overlay: str, kind: str) -> None:
    [found] = of_kind(overlay, kind)
    most = found["spec"]["maxReplicaCount" if kind == "ScaledObject" else "replicas"]
    names = [f"http://vllm-{number}.vllm:8000/v1" for number in range(most)]
    assert settings(overlay)["REDRAFT_ENGINE_URLS"].split(",") == names


def test_vllm_takes_its_arguments() -> None:
    containers = [
        container for overlay in ("remote", "multi-node") for pod in pods(overlay) for container in pod["containers"]
    ]
    servers = [container["args"] for container in containers if container["name"] == "vllm"]
    assert len(servers) == 3
    # What Kubernetes would fill in is a number or an address; vLLM's parser takes a number for either.
    parse_by_vllm(*([re.sub(r"\$\(LWS_\w+\)", "1", argument) for argument in server] for server in servers))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_pods(overlay: str) -> None:
    labels = [t["metadata"]["labels"] for found in objects(overlay) for t in templates(found)]
    for found in of_kind(overlay, "Service", "PodDisruptionBudget", "PodMonitor"):
        selector = found["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= pod.items() for pod in labels), found["metadata"]["name"]
