"""Print, as JSON, colocated rollouts of some problems, as in training (run by test_rollout)."""

import dataclasses
import json
import sys
from typing import Any

from vllm import LLM

from benchmarks.shared.rounds import rollouts_in_rounds
from stepgrpo_core import ExitSettings
from tests.support.servers import MODEL
from training.demo.world import sample_problems
from training.rollouts.batch import Probing, Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.vllm_engine import VllmEngine, format_of

SETTINGS = ExitSettings(policy="confidence")
EVERY_POLICY = (  # but give_up, whose settings are the operator's
    ExitSettings(policy="budget", max_steps=2),
    ExitSettings(policy="budget", budget_tokens=40),
    ExitSettings(policy="consistency"),
    ExitSettings(policy="entropy", max_probes=32, min_interval=0),
    ExitSettings(policy="margin"),
    ExitSettings(policy="pattern", pattern=r"^Wait|=\d+$"),
    ExitSettings(policy="repetition"),
    ExitSettings(policy="sufficiency"),
    ExitSettings(policy="verifier"),
    ExitSettings(policy="confidence+budget+repetition", max_steps=3),
)


def requests(tokenizer: Any, count: int, temperature: float) -> list[RolloutRequest]:
    """Return the same requests for every way to run them."""
    return [
        RolloutRequest(
            tuple(prompt_ids(tokenizer, each.prompt)), Sampling(900, temperature, seed=100 + index)
        )
        for index, each in enumerate(sample_problems(9, "test", count))
    ]


def prompt_ids(tokenizer: Any, message: str) -> list[int]:
    chat = [{"role": "user", "content": message}]
    ids: list[int] = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    return ids


def main(count: int) -> None:
    llm = LLM(
        model=str(MODEL),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        enable_chunked_prefill=False,
        logprobs_mode="processed_logprobs",
    )
    tokenizer = llm.get_tokenizer()
    form = format_of(tokenizer, SETTINGS.closing_text)
    engine = VllmEngine(llm.llm_engine)

    def run(
        temperature: float,
        probing: Probing,
        settings: ExitSettings = SETTINGS,
        problems: int = count,
    ) -> list[dict[str, Any]]:
        made = run_rollouts(
            engine, requests(tokenizer, problems, temperature), settings, form, probing=probing
        )
        for each in made:  # text is decoded from the ids, which are authoritative
            assert tokenizer.decode(each.ids, skip_special_tokens=True) == "".join(
                form.texts_after(each.prompt_ids)(each.ids)
            )
        return [as_json(each) for each in made]

    rounds = rollouts_in_rounds(llm, requests(tokenizer, count, 0.0), SETTINGS, form)
    results = {
        "sampled": run(1.0, "parallel"),
        "greedy": run(0.0, "parallel"),
        "greedy, sequential": run(0.0, "sequential"),
        "policies": [run(1.0, "parallel", each, 6) for each in EVERY_POLICY],
        "greedy, in rounds": [{"ids": each.ids, "logprobs": each.logprobs} for each in rounds],
    }
    print("RESULT", json.dumps(results))


def as_json(rollout: Rollout) -> dict[str, Any]:
    return dataclasses.asdict(rollout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
