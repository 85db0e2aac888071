"""Engines of an evaluation: a running server, and one here that is spread over GPUs."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm
from transformers import AutoTokenizer

from stepgrpo_core import InvalidSetting
from tests.support.servers import MODEL
from tests.support.service.http_server import Handler, LocalServer
from training.evaluation.command import contenders_of
from training.evaluation.engines import LocalEngine, version_of
from training.evaluation.records import EngineSettings, read_head, read_records
from training.evaluation.run import Work, complete, plan
from training.evaluation.tasks import draws_of, load_task
from training.run.checkpoints import RunStopped

TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
BLOCK = {
    "exit_reason": "natural",
    "steps": 2,
    "reasoning_tokens": 3,
    "probes": 1,
    "probe_tokens": 5,
    "cut_at": None,
    "injected_tokens": 0,
    "discarded_tokens": 0,
    "confidence": None,
}


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that answers every prompt alike, and keeps what it was asked."""
    bodies: list[dict[str, Any]] = []
    ids = TOKENIZER.encode("<think>x</think>\\boxed{7}", add_special_tokens=False)

    class Rollouts(Handler):
        def do_GET(self) -> None:
            found = {"version": "9.8"} if self.path == "/version" else {}
            status = {"/gone/version": 404, "/locked/version": 401}.get(self.path, 200)
            self.reply(status, json.dumps(found).encode())

        def do_POST(self) -> None:
            bodies.append(json.loads(self.body()))
            logprobs = {"token_logprobs": [-0.5] * len(ids)}
            choice = {"token_ids": ids, "finish_reason": "stop", "logprobs": logprobs}
            self.reply(200, json.dumps({"choices": [choice], "stepgrpo": BLOCK}).encode())

    with LocalServer(Rollouts).serving() as running:
        yield SimpleNamespace(url=running.address, bodies=bodies)


def works(output: Path, url: str, policy: str = "confidence:threshold=0.9") -> list[Work]:
    contenders, _ = contenders_of([f"tuned={MODEL}"], ["none", policy], "tuned", "none")
    return plan(
        contenders,
        {"demo": load_task("demo", limit=2)},
        {"demo": draws_of("demo", samples=2)},
        output,
        engine=EngineSettings(server=url),
    )


def test_a_server_completes_under_the_contenders_policy_and_name(
    tmp_path: Path, server: SimpleNamespace
) -> None:
    planned = works(tmp_path, server.url)
    complete(planned, False, lambda: False)
    for work in planned:
        found = read_records(work.path, work.settings)
        assert [(each.sample, each.answer, each.same_as) for each in found] == [
            (0, "7", 0),
            (1, "7", 0),
        ] * 2
        assert work.settings.engine == "vllm 9.8 on a server"
        assert read_head(work.path)["made_with"]["hardware"] == f"the server {server.url}"
    assert {body["model"] for body in server.bodies} == {"tuned"}
    exits = [body["vllm_xargs"] for body in server.bodies]
    assert [each["exit_policy"] for each in exits] == ["none"] * 4 + ["confidence"] * 4
    assert exits[-1]["exit_threshold"] == 0.9
    seeds = [body["seed"] for body in server.bodies]
    assert sorted(seeds[:4]) == sorted(seeds[4:])
    done = len(server.bodies)
    complete(planned, False, lambda: False)
    assert len(server.bodies) == done  # nothing is left to do


def test_a_server_can_be_stopped_and_settings_that_it_cannot_be_told_are_refused(
    tmp_path: Path, server: SimpleNamespace
) -> None:
    with pytest.raises(RunStopped, match="stopped; what was finished is kept"):
        complete(works(tmp_path, server.url), False, lambda: True)
    with pytest.raises(RunStopped, match=r"requests cannot carry it"):
        complete(works(tmp_path, server.url, "confidence:skip_first=false")[1:], False, bool)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nowhere", "http://"])
def test_a_server_that_does_not_answer_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidSetting, match=r"no stepgrpo-serve answers there"):
        works(tmp_path, url)


def test_an_url_with_the_path_of_the_api_is_refused(
    tmp_path: Path, server: SimpleNamespace
) -> None:
    with pytest.raises(InvalidSetting, match=r"its URL has no path, not /v1"):
        works(tmp_path, f"{server.url}/v1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size=0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5"),
        ({"server": "u", "tensor_parallel_size": 2}, "set the engine's memory and GPUs there"),
    ],
)
def test_engines_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        EngineSettings(**settings)


def test_an_engine_here_is_spread_over_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Loaded:
        def __init__(self, **options: Any) -> None:
            given.update(options)
            config = SimpleNamespace(dtype="torch.bfloat16", hf_config=None)
            self.llm_engine = SimpleNamespace(model_config=config)

    monkeypatch.setattr(vllm, "LLM", Loaded)
    settings = EngineSettings(tensor_parallel_size=4, gpu_memory_utilization=0.8)
    engine = LocalEngine(str(MODEL), settings, lambda: False, max_model_len=99)
    assert (given["tensor_parallel_size"], given["gpu_memory_utilization"]) == (4, 0.8)
    assert (given["max_model_len"], given["model"]) == (99, str(MODEL))
    assert engine.made_with["dtype"] == "bfloat16"
    assert version_of(settings).endswith(" x 4")
    assert " x " not in version_of(EngineSettings())


def test_a_key_is_shown_nowhere_and_a_password_in_the_url_is_refused(
    server: SimpleNamespace,
) -> None:
    settings = EngineSettings(server="http://here", api_key="secret")
    assert "secret" not in repr(settings)
    with pytest.raises(InvalidSetting, match="leave out the password") as error:
        EngineSettings(server="http://me:secret@here:8000")
    assert "secret" not in str(error.value)
    with pytest.raises(InvalidSetting, match="it answers HTTP 404: use its URL without a path"):
        version_of(EngineSettings(server=f"{server.url}/gone"))
    with pytest.raises(InvalidSetting, match="set OPENAI_API_KEY to an API key that it accepts"):
        version_of(EngineSettings(server=f"{server.url}/locked", api_key="secret"))
    with pytest.raises(InvalidSetting, match="printable ASCII") as error:
        version_of(EngineSettings(server="http://here", api_key="se\ncret"))
    assert "cret" not in str(error.value)
