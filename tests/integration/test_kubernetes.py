"""Kubernetes, as far as that goes without a cluster: kustomize builds every variant, the schemas
accept it, and what it says of the server is true of the server."""

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from service.config.access import add_access_flags
from service.config.server import add_flags, read_defaults
from service.process.server import argument_parser
from tests.support.observing.prometheus import tool
from tests.support.servers import ROOT, Server
from training.cli import build_parser

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

FOLDER = ROOT / "deploy" / "kubernetes"
PARTS = ("base", "training")
OVERLAYS = ("overlays/demo", "overlays/replicas", "overlays/trained", "overlays/ray")
VERSIONS = ("1.30", "1.37")  # of Kubernetes: the oldest and the newest that are checked
OPERATOR = {"ServiceMonitor", "PrometheusRule"}  # not Kubernetes' own, so without a schema here
SECRETS = {"stepgrpo-api-keys", "stepgrpo-hub"}  # made by hand: docs/operations.md
ENGINE_ENDS_SECONDS = 10

Item = dict[str, Any]


@functools.cache
def kubectl() -> str:
    command = [ROOT / "scripts" / "kubectl.sh"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def built(variant: str) -> list[Item]:
    """What `kubectl apply -k` would send."""
    command = [kubectl(), "kustomize", str(FOLDER / variant)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return list(yaml.safe_load_all(ran.stdout))


def of(variant: str, kind: str) -> list[Item]:
    return [item for item in built(variant) if item["kind"] == kind]


def pods(variant: str) -> Iterator[Item]:
    """Templates of the pods of every workload."""
    for item in built(variant):
        if "template" in item.get("spec", {}):
            yield item["spec"]["template"]


def containers(variant: str) -> Iterator[Item]:
    for pod in pods(variant):
        yield from pod["spec"]["containers"]


def server_of(variant: str) -> tuple[Item, Item]:
    """The server's Deployment and container."""
    (deployment,) = (d for d in of(variant, "Deployment") if d["metadata"]["name"] == "stepgrpo")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return deployment, container


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", PARTS + OVERLAYS)
def test_kubernetes_schemas_accept_every_variant(variant: str, version: str) -> None:
    for item in built(variant):
        if item["kind"] not in OPERATOR:
            kubernetes_validate.validate(item, version, strict=True)
    names = [(item["kind"], item["metadata"]["name"]) for item in built(variant)]
    assert len(names) == len(set(names))


def test_a_misspelt_field_would_be_found() -> None:
    deployment = json.loads(json.dumps(server_of("base")[0]))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("variant", OVERLAYS)
def test_what_is_selected_is_there(variant: str) -> None:
    """Services, budgets and monitors find exactly the pods they mean, and ports by name."""
    all_labels = [pod["metadata"]["labels"] for pod in pods(variant)]
    for service in of(variant, "Service"):
        (pod,) = selected(pods(variant), service["spec"]["selector"])
        ports = {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for workload in of(variant, "Deployment"):
        assert len(selected(pods(variant), workload["spec"]["selector"]["matchLabels"])) == 1
    (budget,) = of(variant, "PodDisruptionBudget")
    assert server_of(variant)[0]["spec"]["template"]["metadata"]["labels"] in all_labels
    assert (
        selected(pods(variant), budget["spec"]["selector"]["matchLabels"])[0]["spec"]
        == (server_of(variant)[0]["spec"]["template"]["spec"])
    )


def selected(pods: Iterator[Item], labels: dict[str, str]) -> list[Item]:
    return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]


@pytest.mark.parametrize("variant", PARTS + OVERLAYS)
def test_every_volume_is_claimed_mounted_and_named(variant: str) -> None:
    claims = {claim["metadata"]["name"] for claim in of(variant, "PersistentVolumeClaim")}
    for pod in pods(variant):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims
            if secret := volume.get("secret"):
                assert secret["secretName"] in SECRETS


@pytest.mark.parametrize("variant", PARTS + OVERLAYS)
def test_no_container_can_do_more_than_it_must(variant: str) -> None:
    users = {
        re.search(r"^USER (\d+):\d+$", (ROOT / "deploy" / name).read_text(), re.M | re.S)[1]  # type: ignore[index]
        for name in ("Dockerfile.service", "Dockerfile.training")
    }
    for pod in pods(variant):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert {str(context["runAsUser"])} == users
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers(variant):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        names = [each["name"] for each in container.get("env", ())]
        assert not any("KEY" in name and not name.endswith("_FILE") for name in names)


@pytest.mark.parametrize("variant", ["base", *OVERLAYS])
def test_the_server_takes_its_arguments(variant: str) -> None:
    """By the real parser, and with the time to drain that the pod has."""
    deployment, container = server_of(variant)
    parser = argument_parser("", "")
    add_flags(parser)
    add_access_flags(parser)
    args = parser.parse_args(container["args"])
    assert read_defaults(args, {}).settings.policy in ("confidence", "none")
    pod = deployment["spec"]["template"]["spec"]
    (slept,) = (int(word) for word in container["lifecycle"]["preStop"]["exec"]["command"][1:])
    needed = slept + args.shutdown_timeout + ENGINE_ENDS_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= needed
    assert {"name": "http", "containerPort": args.port} in container["ports"]
    image = container["image"]
    assert image in {f"stepgrpo-service:{tag}" for tag in ("cpu", "cuda", "ray")}
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (image[-3:] != "cpu")


def test_workers_wait_for_as_long_as_the_head_drains() -> None:
    head, worker = of("overlays/ray", "Deployment")
    assert (head["metadata"]["name"], worker["metadata"]["name"]) == ("stepgrpo", "stepgrpo-worker")
    args = server_of("overlays/ray")[1]["args"]
    timeout = int(args[args.index("--shutdown-timeout") + 1])
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert int(container["lifecycle"]["preStop"]["exec"]["command"][1]) > timeout
    size = int(args[args.index("--data-parallel-size") + 1])
    assert size == 1 + worker["spec"]["replicas"]
    assert f'get("GPU", 0) < {size}' in server_of("overlays/ray")[1]["command"][2]


def test_the_probes_paths_are_served(server: Server) -> None:
    for variant in ("base", *OVERLAYS):
        container = server_of(variant)[1]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == "http"
            assert httpx.get(server.url + asked["path"]).status_code == 200
    assert (
        container["livenessProbe"]["httpGet"]["path"]
        != (container["readinessProbe"]["httpGet"]["path"])
    )


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_real_series(server: Server) -> None:
    (scaler,) = of("overlays/replicas", "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "stepgrpo"
    assert "replicas" not in server_of("overlays/replicas")[0]["spec"]
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    adapter = yaml.safe_load((FOLDER / "autoscaling" / "prometheus-adapter.yaml").read_text())
    assert asked == {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    series = {rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]["custom"]}
    assert series <= server.metrics().keys()


def test_the_operator_gets_prometheuss_rules(tmp_path: Path) -> None:
    """promtool accepts them, and the job's name in the alerts is the one that the monitor gives."""
    (rule,) = of("overlays/replicas", "PrometheusRule")
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    assert compact(rule["spec"]) == compact(rules)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    command = [tool("promtool"), "check", "rules", str(tmp_path / "rules.yml")]
    subprocess.run(command, check=True, capture_output=True)
    (monitor,) = of("overlays/replicas", "ServiceMonitor")
    (service,) = of("overlays/replicas", "Service")
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    job = labels[monitor["spec"]["jobLabel"]]
    assert f'up{{job=\\"{job}\\"}}' in json.dumps(rule["spec"])
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def compact(value: Any) -> str:
    """As text in which white space counts once: kustomize writes folded lines anew."""
    return re.sub(r"(\\n|\s)+", " ", json.dumps(value, sort_keys=True))


def test_every_dashboard_is_in_the_config_map() -> None:
    (dashboards,) = of("overlays/replicas", "ConfigMap")
    files = (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    assert dashboards["data"] == {each.name: each.read_text(encoding="utf-8") for each in files}


def test_the_job_trains_what_the_service_serves() -> None:
    (job,) = of("overlays/trained", "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    args = build_parser().parse_args([*container["args"], "--dry-run"])
    (output,) = (each for each in container["args"] if each.startswith("output="))
    deployment, server = server_of("overlays/trained")
    assert server["args"][0] == output.removeprefix("output=")
    assert args.resume
    for pod in (job["spec"]["template"], deployment["spec"]["template"]):
        (runs,) = (v for v in pod["spec"]["volumes"] if v["name"] == "runs")
        assert runs["persistentVolumeClaim"]["claimName"] == "stepgrpo-runs"
        (mount,) = (m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "runs")
        assert output.startswith(f"output={mount['mountPath']}/")


def test_keys_come_from_their_file_and_metrics_have_a_port() -> None:
    """The demo alone has no keys; nowhere can a server start open because a file is missing."""
    for variant in ("base", *OVERLAYS):
        _, container = server_of(variant)
        environment = {each["name"]: each["value"] for each in container["env"]}
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert environment["STEPGRPO_SERVE_METRICS_PORT"] == str(ports["metrics"])
        file = environment.get("STEPGRPO_SERVE_API_KEY_FILE")
        assert (file is None) == (variant == "overlays/demo")
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "api-keys")
        assert file is None or Path(file) == Path(mount["mountPath"]) / "key"
        assert "API_KEY" not in json.dumps([container["command"], container["args"]])
