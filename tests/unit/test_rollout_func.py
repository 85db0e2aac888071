"""The function that TRL calls, over the scripted engine and the demo tokenizer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from stepgrpo_core import ExitReason
from training.config.schema import load_config
from training.grpo import rollout_func
from training.grpo.rollout_func import RolloutFunction
from training.rollouts.batch import Request
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import RolloutFailed
from training.rollouts.vllm_engine import format_of

MODEL = Path(__file__).parents[2] / "models" / "demo-base"
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
FORM = format_of(TOKENIZER, "\n</think>\n\n")
PROMPT = [{"role": "user", "content": "Compute 10+5."}]


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


THOUGHT = ids("<think>\n10+5=15 and once more, slowly: 10+5=15\n\nWait, is that right? Once more.")
ANSWER = ids("\\boxed{15}<|im_end|>")


def model(request: Request) -> Stream:
    """Thinks, is sure of any trial, and answers after a closed thinking."""
    if request.sampling.temperature == 0:
        return Stream(ids("{15}</think>"))
    if FORM.thinking.end_id in request.prompt_ids:
        return Stream(ANSWER)
    return Stream((*THOUGHT, FORM.thinking.end_id, *ANSWER))


def call(
    monkeypatch: pytest.MonkeyPatch, *overrides: str, training: bool = True, step: int = 0
) -> tuple[dict[str, Any], ScriptedEngine, RolloutFunction]:
    settings = ["rollout.exit.min_interval=0", "rollout.truncated_share=1"]
    config = load_config(["demo"], [*settings, *overrides])
    length = config.trl["max_completion_length"]
    engine = ScriptedEngine(model)
    monkeypatch.setattr(rollout_func, "VllmEngine", lambda llm_engine: llm_engine)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=training),
        num_generations=2,
        num_generations_eval=1,
        chat_template_kwargs={},
        state=SimpleNamespace(global_step=step),
        accelerator=SimpleNamespace(process_index=0, is_main_process=True),
        vllm_generation=SimpleNamespace(mode="colocate", llm=SimpleNamespace(llm_engine=engine)),
        args=SimpleNamespace(
            max_completion_length=min(length, 200),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            min_p=None,
            repetition_penalty=1.0,
        ),
    )
    function = RolloutFunction(config, TOKENIZER, FORM)
    return function([PROMPT] * 4, trainer), engine, function


def test_training_rollouts_are_truncated_and_evaluation_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained, _, _ = call(monkeypatch)
    assert {each.outcome.reason for each in trained["rollout"]} == {ExitReason.CONFIDENT}
    assert trained["group_size"] == 2
    evaluated, engine, function = call(monkeypatch, training=False)
    assert {each.outcome.reason for each in evaluated["rollout"]} == {ExitReason.NATURAL}
    assert evaluated["group_size"] == 1
    assert len(engine.requests) == 4  # not one probe
    assert function.counters.rollouts == 0  # training is what is counted


def test_plain_rollouts_are_not_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, _, _ = call(monkeypatch, "rollout.kind=plain")
    assert {each.outcome.reason for each in columns["rollout"]} == {ExitReason.NATURAL}
    thought = TOKENIZER.decode(THOUGHT)
    assert set(columns["text"]) == {f"{thought}</think>\\boxed{{15}}"}  # for the reward


def test_a_share_of_each_group_runs_to_its_own_end(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, _, _ = call(monkeypatch, "rollout.truncated_share=0.5")
    reasons = [each.outcome.reason for each in columns["rollout"]]
    assert reasons == [ExitReason.CONFIDENT, ExitReason.NATURAL] * 2


def test_injected_tokens_carry_loss_unless_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, _, _ = call(monkeypatch)
    assert "env_mask" not in columns
    masked, _, _ = call(monkeypatch, "rollout.train_injected=false")
    closing = len(FORM.thinking.closing_ids)
    for mask, logprobs in zip(masked["env_mask"], masked["logprobs"], strict=True):
        assert mask.count(0) == closing
        assert [value is None for value in logprobs] == [not kept for kept in mask]


def test_prompts_are_those_of_the_chat_template(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, _, _ = call(monkeypatch)
    assert TOKENIZER.decode(columns["prompt_ids"][0]).endswith("<|im_start|>assistant\n")


def test_every_row_and_step_has_its_own_seed_and_a_rerun_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seeds(step: int) -> list[int | None]:
        _, engine, _ = call(monkeypatch, "rollout.kind=plain", step=step)
        return [each.sampling.seed for each in engine.requests]

    assert len(set(seeds(0) + seeds(1))) == 8
    assert seeds(1) == seeds(1)


def test_counters_add_up_over_training(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, engine, function = call(monkeypatch)
    counters = function.counters
    assert counters.rollouts == 4
    assert counters.completion_tokens == sum(map(len, columns["completion_ids"]))
    assert counters.probe_tokens == 4 * len(ids("{15}</think>"))
    assert len(engine.requests) == 12  # thinking, trial and answer of each


def test_a_step_in_which_every_completion_was_cut_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "rollout.kind=plain")
    assert "was cut" not in capsys.readouterr().out
    call(monkeypatch, "rollout.kind=plain", "trl.max_completion_length=6", step=3)
    said = capsys.readouterr().out
    assert "step 4: every completion was truncated at trl.max_completion_length=6" in said
    call(monkeypatch, "trl.max_completion_length=6", training=False)
    assert "was cut" not in capsys.readouterr().out


def test_an_engine_that_dies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedEngine, "step", lambda self: 1 / 0)
    with pytest.raises(RolloutFailed, match="vLLM failed while generating: ZeroDivisionError"):
        call(monkeypatch)
