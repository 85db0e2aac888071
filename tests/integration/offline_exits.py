"""Prints, as JSON, what the offline driver makes of some problems (run by test_offline)."""

import json
import sys

from vllm import SamplingParams

from stepgrpo_core import ExitSettings
from tests.integration.servers import MODEL
from training.demo.world import sample_problems
from training.offline import Engine


def main(count: int) -> None:
    engine = Engine.load(str(MODEL), dtype="float32")
    prompts = [engine.chat_prompt(p.prompt) for p in sample_problems(7, "test", count)]
    params = SamplingParams(temperature=0.0, max_tokens=900)
    settings = ExitSettings(policy="confidence")
    exited = engine.exits(engine.generate(prompts, params), settings, params)
    rows = [
        {
            "ids": each.generation.ids,
            "reason": each.outcome.reason,
            "steps": each.outcome.steps,
            "reasoning_tokens": each.outcome.reasoning_tokens,
            "confidence": each.outcome.confidence,
        }
        for each in exited
    ]
    print("RESULT", json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]))
