"""Starting, refusing to start, draining; and metrics that promtool accepts."""

import os
import re
import socket
import subprocess
import sys

import httpx
import openai
import pytest

from tests.support.observing.prometheus import tool
from tests.support.servers import COMMON, MODEL, OURS, ROOT, Server, free_port
from tests.support.zygote import run
from training.demo.world import sample_problems

pytestmark = pytest.mark.integration

HELD = (str(MODEL), "--exit-holdout", "0.1", "--exit-holdout-base")
REFUSED_SECONDS = 30  # 10 are promised (F23)


def test_promtool_accepts_our_metrics(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
        problem = sample_problems(0, "test", 1)[0]
        client.chat.completions.create(
            model="demo-base",
            messages=[{"role": "user", "content": problem.prompt}],
            extra_body={"vllm_xargs": {"exit_policy": "confidence"}},
        )
    text = httpx.get(f"{server.url}/metrics").text
    ours = "\n".join(line for line in text.splitlines() if re.match(r"(# \w+ )?stepgrpo_", line))
    assert ours.count("# TYPE") >= 12
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=ours + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./no-such-model"], "no config.json"),
        ([str(MODEL), "--exit-calibration", "missing.json"], "missing.json"),
        ([str(MODEL), "--exit-calibration", str(MODEL / "config.json")], "not a calibration"),
        ([str(MODEL), "--exit-threshold", "2"], "threshold=2.0"),
        ([str(MODEL), "--api-server-count", "2"], "--api-server-count=2"),
        ([str(MODEL), "--grpc"], "--grpc=True"),
        ([*HELD, "demo-tuned"], f"not the model itself that is served: use {MODEL}"),
        ([*HELD, str(MODEL)], "no trained model is served beside it"),
        (
            [str(MODEL), "--exit-policy", "nonne"],
            "policy='nonne' is invalid: did you mean 'none'",
        ),
        ([str(MODEL), "--exit-policy", "pattern"], "pattern=None"),
        ([str(MODEL), "--exit-pattern", "(?<!a)b"], "pattern='(?<!a)b' is invalid"),
        ([str(MODEL), "--exit-polcy", "none"], "--exit-polcy"),
        ([str(MODEL), "--exit-config", str(MODEL / "config.json")], "use one of"),
        ([str(MODEL), "--exit-config", str(MODEL / "model.safetensors")], "it is not YAML"),
        ([str(MODEL), "--api-key-file", "none.txt"], "--api-key-file='none.txt' is invalid"),
        ([str(MODEL), "--key-rate", "5"], "there are no API keys"),
        (
            [str(MODEL), "--exit-config", "none.yaml"],
            "--exit-config='none.yaml' is invalid",
        ),
        (
            [str(MODEL)],
            "environment: STEPGRPO_EXIT_MIN_TOKENS=-1 is invalid: use 0 or more",
        ),
    ],
)
def test_f23_a_server_that_cannot_start_says_why_in_one_line(
    arguments: list[str], message: str
) -> None:
    wrong = {"STEPGRPO_EXIT_MIN_TOKENS": "-1"} if "environment" in message else {}
    command = [sys.executable, "-m", "service.cli", *arguments]
    result = run(command, timeout=REFUSED_SECONDS, env=os.environ | wrong)
    assert result.returncode not in (0, None)
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_f23_the_command_itself_says_why_in_one_line() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "service.cli", "./no-such-model"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=REFUSED_SECONDS,
        check=False,
    )
    assert result.returncode not in (0, None)
    assert "no config.json" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_family_that_the_model_is_not_of_ends_the_start_with_one_line() -> None:
    port = str(free_port())
    command = [*OURS, *COMMON, "--exit-family", "gpt-oss", "--host", "127.0.0.1", "--port", port]
    result = run(command, timeout=240, env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"})
    assert result.returncode not in (0, None)
    assert "flag: --exit-family='gpt-oss' is invalid" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stdout + result.stderr


def test_f23_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run([*OURS, "--host", "127.0.0.1", "--port", port], timeout=REFUSED_SECONDS)
    assert result.returncode not in (0, None)
    assert f"port {port}" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
