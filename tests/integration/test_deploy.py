"""Images and compose file, as far as that goes without a container engine: their files are checked,
and their commands run in a folder that holds what the image would hold."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.servers import ROOT, STARTUP_SECONDS, free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

IMAGES = ("service", "training")
DOCKERFILES = (*IMAGES, "ray")
BIN = Path(sys.executable).parent


def dockerfile(image: str) -> Path:
    return ROOT / "deploy" / f"Dockerfile.{image}"


def last_stage(image: str) -> str:
    """The stage that becomes the image, one instruction a line."""
    text = dockerfile(image).read_text(encoding="utf-8").replace("\\\n", " ")
    return text[text.rindex("\nFROM ") :]


def command(image: str, name: str) -> list[str]:
    found = re.search(rf"^{name} (\[.*\])", last_stage(image), re.MULTILINE)
    assert found
    words: list[str] = json.loads(found[1])
    return words


def copied(image: str) -> list[str]:
    return re.findall(r"^COPY ((?!--from)[^\n]+) \S+$", last_stage(image), re.MULTILINE)


@pytest.fixture(scope="module", params=IMAGES)
def image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Name and folder of an image that holds what its Dockerfile copies, and nothing else."""
    folder = tmp_path_factory.mktemp(request.param)
    for line in copied(request.param):
        for name in line.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name)
            else:
                shutil.copy(ROOT / name, folder / name)
    return request.param, folder


def surroundings(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),  # before the project as it is installed here
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }


def test_the_images_commands_run_on_what_the_images_hold(image: tuple[str, Path]) -> None:
    name, folder = image
    words = [*command(name, "ENTRYPOINT"), *command(name, "CMD")]
    if name == "training":
        words = [word.replace("/data", str(folder)) for word in words]
        ran = subprocess.run(
            [*words, "--dry-run"],
            cwd=folder,
            env=surroundings(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return
    port = free_port()
    health = [word.replace("8000", str(port)) for word in command(name, "HEALTHCHECK.*CMD")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--port", str(port)],
            cwd=folder,
            env=surroundings(folder),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_healthy(process, health, folder)
        models = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=10).json()["data"]
        assert {each["id"] for each in models} == {"demo-base", "demo-step-grpo"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_healthy(process: "subprocess.Popen[bytes]", health: list[str], folder: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        checked = subprocess.run(health, env=surroundings(folder), capture_output=True, check=False)
        if checked.returncode == 0:
            return
        time.sleep(1)
    raise AssertionError((folder / "log").read_text()[-4000:])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    ran = subprocess.run(
        [BIN / "hadolint", "--no-color", dockerfile(name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_copied_is_there_and_sent_to_the_builder(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    let_through = re.findall(r"^!(\S+)", ignored, re.MULTILINE)
    text = dockerfile(name).read_text(encoding="utf-8")
    for line in re.findall(r"^COPY ((?!--from)[^\n]+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert any(map(source.startswith, let_through))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


def test_what_comes_from_a_registry_is_pinned_by_digest() -> None:
    """A tag can be moved; a digest is the image itself."""
    digest = r"@sha256:[0-9a-f]{64}\b"
    for name in IMAGES:
        text = dockerfile(name).read_text(encoding="utf-8")
        assert re.search(rf"^ARG PYTHON=3\.11\.\d+-\S+{digest}$", text, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:${PYTHON}"}
    pulled = [each["image"] for each in compose()["services"].values() if "build" not in each]
    assert len(pulled) == 2
    for image in pulled:
        assert re.search(rf":\$\{{[A-Z]+:-v?\d+\.\d+\.\d+{digest}\}}$", image), image


def test_the_compose_file_is_one() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(ROOT / "docker-compose.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_what_the_compose_file_mounts_is_there() -> None:
    """And what it calls by name is what others listen to."""
    services, volumes = compose()["services"], compose()["volumes"]
    for service in services.values():
        sources = [volume.split(":")[0] for volume in service.get("volumes", ())]
        assert all(s in volumes or (s.startswith("./") and (ROOT / s).is_dir()) for s in sources)
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
    targets = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    (scraped,) = targets["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = scraped.split(":")
    assert host in services["service"]["networks"]["default"]["aliases"]
    assert int(port) == services["service"]["environment"]["STEPGRPO_SERVE_METRICS_PORT"]
    sources = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    )
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy" / "grafana" / "dashboards" / Path(home).name).is_file()


def test_settings_of_the_example_are_read() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    named = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert named - {"COMPOSE_PROFILES"} <= used


@pytest.mark.parametrize("key", ["", "secret"])
def test_the_services_keys_come_from_a_file(tmp_path: Path, key: str) -> None:
    """The entry point of the compose file, with an echo in place of the server."""
    words = [
        word.replace("$$", "$").replace("/run/secrets/api_key", str(tmp_path / "key"))
        for word in compose()["services"]["service"]["entrypoint"]
    ]
    (tmp_path / "key").write_text(key)
    (tmp_path / "stepgrpo-serve").write_text('#!/bin/sh\necho "$STEPGRPO_SERVE_API_KEY_FILE|$*"\n')
    (tmp_path / "stepgrpo-serve").chmod(0o755)
    ran = subprocess.run(
        [*words, "models/a b", "--port", "1"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    file = tmp_path / "key" if key else ""
    assert ran.stdout == f"{file}|models/a b --port 1\n"
