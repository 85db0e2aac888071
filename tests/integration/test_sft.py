"""DEER+SFT on real vLLM: killed, resumed, and what it leaves can be loaded."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.runs.waiting import wait_for_the_end
from tests.support.servers import MODEL, ROOT
from tests.support.zygote import Process, killed, popen
from training.config.schema import RunConfig, load_config
from training.run.checkpoints import RunStopped, StopOnSignal
from training.run.loading import load_tokenizer
from training.run.processes import run_in_subprocess
from training.sft.samples import PromptSamples, Selected
from training.sft.train import build_trainer, run_sft, sft_arguments

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

PROMPTS = 24  # a calibration needs 20 completed ones
NAMES = ["demo", "methods/deer-sft"]
OVERRIDES = [
    f"data.train=[{{demo: {PROMPTS}}}]",
    "data.exclude=[]",
    "model.served_name=short",
    f"calibration_prompts={PROMPTS}",
    "sft.samples=2",
    "sft.trl.max_length=640",
    "sft.trl.bf16=false",
    "sft.trl.gradient_checkpointing=false",
    "sft.trl.per_device_train_batch_size=32",  # all rows, so that losses compare
    "sft.trl.gradient_accumulation_steps=1",
    "sft.trl.max_steps=4",
    "sft.trl.learning_rate=1e-3",
    "sft.trl.warmup_steps=0",
    "sft.trl.save_strategy=steps",
    "sft.trl.save_steps=2",
]


def configured(output: Path) -> RunConfig:
    return load_config(NAMES, [*OVERRIDES, f"output={output}"])


def python(*arguments: str) -> contextlib.AbstractContextManager[Process]:
    """Python on the repository, killed at the end; its output is one stream."""
    process = popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    return killed(process)


def sft(output: Path, *flags: str) -> contextlib.AbstractContextManager[Process]:
    configs = [flag for name in NAMES for flag in ("--config", name)]
    command = ("-m", "training.cli", "sft", *configs, *OVERRIDES, f"output={output}", *flags)
    return python(*command)


def read_until(process: Process, start: str) -> str:
    """Everything up to the first line that starts with `start`."""
    assert process.stdout is not None
    seen: str = ""
    for line in process.stdout:
        seen += line
        if line.startswith(start):
            return seen
    raise AssertionError(f"ended without a line that starts with {start!r}:\n{seen[-3000:]}")


@dataclass(frozen=True)
class Finished:
    """A run that was stopped in its first step and lost the end of its samples, then resumed."""

    output: Path
    samples: bytes
    """Of the first run."""
    stopped: str
    """What the first run printed at last."""
    resumed: str
    """What the second run printed."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    output = tmp_path_factory.mktemp("sft") / "out"
    with sft(output) as process:
        read_until(process, "fine-tuning on")
        process.send_signal(signal.SIGTERM)
        stopped = process.communicate(timeout=120)[0]
        assert process.returncode == 1, stopped[-3000:]
    samples = (output / "samples.jsonl").read_bytes()
    (output / "samples.jsonl").write_bytes(samples[:-20])
    with sft(output, "--resume") as process:
        resumed = process.communicate(timeout=240)[0]
        assert process.returncode == 0, resumed[-3000:]
    return Finished(output, samples, stopped, resumed)


def test_a_signal_saves_the_step_and_says_how_to_go_on(finished: Finished) -> None:
    last = finished.stopped.splitlines()[-1]
    checkpoint = finished.output / "checkpoint-1"
    assert last.startswith(f"stepgrpo-train: SIGTERM: the last good checkpoint is {checkpoint}; ")
    assert json.loads((checkpoint / "stepgrpo.json").read_text())["counters"]["rollouts"] == 48


def test_a_resumed_run_samples_only_what_was_lost(finished: Finished) -> None:
    assert "dropped an incomplete last line" in finished.resumed
    assert f"{PROMPTS - 1} of {PROMPTS} prompts are already sampled" in finished.resumed
    assert "sampled 1 of 1 prompts" in finished.resumed
    before = finished.samples.splitlines()
    after = (finished.output / "samples.jsonl").read_bytes().splitlines()
    assert after[:-1] == before[:-1]
    assert json.loads(after[-1])["prompt_ids"] == json.loads(before[-1])["prompt_ids"]


def test_what_was_kept_is_correct_finished_and_often_cut_short_by_an_exit(
    finished: Finished,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    lines = (finished.output / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    kept = [each for row in rows for each in row["kept"]]
    assert len(kept) > PROMPTS // 2
    assert f"fine-tuning on {len(kept)} completions" in finished.resumed
    for each in kept:
        assert each["ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(each["ids"]).count("</think>") == 1
    exits = [each for each in kept if each["injected"][0] < each["injected"][1]]
    assert len(exits) > len(kept) // 2
    for each in exits:
        assert tokenizer.decode(each["ids"][slice(*each["injected"])]) == "\n</think>\n\n"


def test_the_loss_falls_and_the_output_is_a_model(finished: Finished) -> None:
    output = finished.output
    logged = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in logged if "loss" in row]
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.8 * losses[0]
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.config.use_cache
    assert AutoTokenizer.from_pretrained(output).chat_template
    base = AutoModelForCausalLM.from_pretrained(MODEL).get_parameter("model.norm.weight")
    assert not base.equal(model.get_parameter("model.norm.weight"))
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    card = (output / "README.md").read_text()
    assert f"{PROMPTS} prompts, {2 * PROMPTS} completions" in card
    assert "| loss |" in card
    calibration = json.loads((output / "calibration.json").read_text())
    assert calibration["model"] == "short"


def test_an_output_with_samples_of_another_run_is_not_written_over(
    finished: Finished,
) -> None:
    with pytest.raises(FileExistsError, match="pass --resume"):
        run_sft(configured(finished.output), resume=False)


def test_the_trainer_sees_the_sampled_tokens_and_no_loss_on_prompts(tmp_path: Path) -> None:
    config = configured(tmp_path)
    kept = [Selected((388, 20, 21, 387), (1, 2)), Selected((388, 30, 31, 32, 33, 387), (0, 0))]
    samples = [
        PromptSamples(row, (386, 321, 198), (each,), 2, 1, 0, 0, 9, 0, 0)
        for row, each in enumerate(kept)
    ]
    trainer = build_trainer(
        config, sft_arguments(config), load_tokenizer(config), samples, StopOnSignal(1)
    )
    (batch,) = trainer.get_train_dataloader()
    rows = sorted(
        zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True),
        key=lambda row: row[1].count(-100),
    )
    pad = trainer.processing_class.pad_token_id
    assert rows == [
        ([386, 321, 198, *kept[1].ids], [-100] * 3 + [*kept[1].ids]),
        ([386, 321, 198, *kept[0].ids, pad, pad], [-100] * 3 + [*kept[0].ids, -100, -100]),
    ]


def die(stopping: Callable[[], bool]) -> None:
    os._exit(0 if stopping() else 3)


def test_the_engines_process_is_asked_to_stop_and_its_reason_arrives(tmp_path: Path) -> None:
    stop = StopOnSignal(1)
    stop.signal = signal.SIGTERM
    with pytest.raises(RunStopped, match=r"^asked to$"):
        run_in_subprocess(wait_for_the_end, tmp_path / "pid", stop=stop)


def test_an_engine_that_dies_stops_the_run_with_its_status() -> None:
    with pytest.raises(RunStopped, match=r"ended with status 3; .* continue with --resume"):
        run_in_subprocess(die, stop=StopOnSignal(1))


def test_a_run_that_is_killed_takes_its_engine_along(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = (
        "from pathlib import Path; from training.run.processes import run_in_subprocess; "
        "from training.run.checkpoints import StopOnSignal; "
        "from tests.support.runs.waiting import wait_for_the_end; "
        f"run_in_subprocess(wait_for_the_end, Path({str(marker)!r}), stop=StopOnSignal(1))"
    )
    with python("-c", script):
        wait_until(lambda: marker.exists() and marker.read_text() != "", seconds=120)
        engine = int(marker.read_text())
    wait_until(lambda: not running(engine), seconds=10)


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def running(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
