"""Commands of the README and the Makefile, run as they are written."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def readme_curl(port: int) -> str:
    (command,) = re.findall(r"^curl .*?[^\\]\n(?=```|#|\n|\{)", README, re.MULTILINE | re.DOTALL)
    return str(command).replace(":8000", f":{port}")


def test_make_serve_answers_the_readmes_curl_with_what_the_readme_shows(served: int) -> None:
    answer = subprocess.run(
        ["bash", "-c", readme_curl(served)], capture_output=True, text=True, check=True
    )
    response = json.loads(answer.stdout)
    (shown,) = re.findall(r"^```text\n(\{\.\.\. .*?)^```", README, re.MULTILINE | re.DOTALL)
    fields = re.findall(r'"(\w+)":', shown)
    assert len(fields) > 10
    assert [field for field in fields if f'"{field}":' not in answer.stdout] == []
    block = response["stepgrpo"]
    assert response["choices"][0]["message"]["content"].strip()
    assert block["policy"] == "confidence"
    assert block["exit_reason"] in ("confident", "natural")
    assert block["saved"]["method"] == "predicted"
    base, trained = (to_the_end(served, name) for name in ("demo-base", "demo-step-grpo"))
    for each in (base, trained):
        message = response["choices"][0]["message"]
        assert each["choices"][0]["message"]["content"] == message["content"]
    assert trained["stepgrpo"]["steps"] == 1
    for each in (trained, response):
        assert each["usage"]["completion_tokens"] < base["usage"]["completion_tokens"]


def to_the_end(port: int, model: str) -> dict[str, Any]:
    """Return the response of a model without exits."""
    question = re.search(r"Compute [^\"]+?\{\}\.", readme_curl(port))
    assert question
    body = {
        "model": model,
        "seed": 1,
        "messages": [{"role": "user", "content": question[0].replace("\\\\", "\\")}],
        "vllm_xargs": {"exit_policy": "none"},
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    answer: dict[str, Any] = httpx.post(url, json=body, timeout=120).json()
    return answer


def test_make_help_explains_every_target() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"serve", "test", "lint", "bench", "demo", "clean"} <= set(targets)
    assert all(re.search(rf"^{target} +\S", shown, re.MULTILINE) for target in targets)


def test_a_second_set_up_installs_nothing() -> None:
    started = time.monotonic()
    result = subprocess.run(
        ["make", "--no-print-directory", "setup"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ""
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("ACCELERATOR", "tpu", "use cpu or cuda"), ("PYTHON", "/bin/false", "")],
)
def test_a_set_up_that_cannot_work_says_so(variable: str, value: str, message: str) -> None:
    result = subprocess.run(
        ["make", "setup", f"{variable}={value}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {variable: value},
        check=False,
    )
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
