"""Print, as JSON, the offline driver's results on some problems (run by test_offline)."""

import dataclasses
import json
import sys

from vllm import SamplingParams

from stepgrpo_core import ExitSettings
from tests.support.servers import MODEL
from training.demo.world import sample_problems
from training.rollouts.calibration import record
from training.rollouts.offline import Engine


def main(count: int) -> None:
    engine = Engine.load(str(MODEL), dtype="float32")
    prompts = [engine.chat_prompt(p.prompt) for p in sample_problems(7, "test", count)]
    params = SamplingParams(temperature=0.0, max_tokens=900)
    settings = ExitSettings(policy="confidence")
    generations = engine.generate(prompts, params)
    exited = engine.exits(generations, settings, params)
    runs = record(engine, generations, settings, trials=True)
    long = dataclasses.replace(settings, probe_max_tokens=880)  # too large to fit late in a run
    cramped = record(engine, generations, long, trials=True)
    rows = [
        {
            "ids": each.generation.ids,
            "reason": each.outcome.reason,
            "steps": each.outcome.steps,
            "reasoning_tokens": each.outcome.reasoning_tokens,
            "confidence": each.outcome.confidence,
            "starts": run.starts,
            "confidences": run.confidences,
            "cramped": late.confidences,
        }
        for each, run, late in zip(exited, runs, cramped, strict=True)
    ]
    print("RESULT", json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]))
