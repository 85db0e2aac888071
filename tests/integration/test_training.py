"""GRPO with real TRL and real vLLM on this CPU: it learns, survives, and its output serves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import httpx
import pytest

from tests.support.servers import OURS, ROOT, running
from tests.support.zygote import Process, popen
from training.demo.world import sample_problems
from training.run.checkpoints import last_sealed

pytestmark = [pytest.mark.integration, pytest.mark.background]

STEPS = 6
SMALL = (
    *("data.train=[{demo: 24}]", "data.exclude=[]", f"trl.max_steps={STEPS}", "trl.save_steps=2"),
    *("trl.learning_rate=2e-4", "trl.max_completion_length=384", "calibration_prompts=24"),
    "trl.per_device_train_batch_size=16",
)
EPOCHS = 4  # of the same three steps, so that rewards of the first and the last compare
LONGER = (
    *(f"trl.max_steps={3 * EPOCHS}", "trl.per_device_train_batch_size=32"),
    *("data.train=[{demo: 12}]", "calibration_prompts=0", "trl.save_steps=12"),
)
# Threads that wait for each other burn the cores of whatever else runs here.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
Metrics = list[dict[str, float]]


def command(output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "training.cli", "grpo", "--config", "demo"),
        *(f"output={output}", *SMALL, *more),
    ]


def start(output: Path, *more: str, before: tuple[str, ...] = ()) -> Process:
    with (output.parent / f"{output.name}.log").open("ab") as log:
        return popen(
            [*before, *command(output, *more)], stdout=log, stderr=log, cwd=ROOT, env=ONE_THREAD
        )


def finish(output: Path, *more: str, before: tuple[str, ...] = ()) -> str:
    """Run to the end; what it printed since."""
    log = output.parent / f"{output.name}.log"
    size = log.stat().st_size if log.exists() else 0
    process = start(output, *more, before=before)
    try:
        process.wait(600)
    finally:
        process.kill()
    return log.read_bytes()[size:].decode(errors="replace")


def metrics(output: Path) -> Metrics:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "reward" in row]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("grpo") / "trained"
    printed = finish(output)
    assert (output / "metrics.jsonl").exists(), printed[-3000:]
    return output


@pytest.mark.slow
def test_four_epochs_raise_the_reward_and_shorten_the_thinking(tmp_path: Path) -> None:
    output = tmp_path / "longer"
    printed = finish(output, *LONGER)
    assert (output / "metrics.jsonl").exists(), printed[-3000:]
    rows = metrics(output)
    assert [row["step"] for row in rows] == list(range(1, 3 * EPOCHS + 1))
    first, last = rows[:3], rows[-3:]
    assert fmean(row["reward"] for row in last) > fmean(row["reward"] for row in first)
    assert fmean(row["steps/k_mean"] for row in last) < fmean(row["steps/k_mean"] for row in first)


def test_trainer_and_engine_agree_about_log_probs_after_every_update(trained: Path) -> None:
    for row in metrics(trained):
        # The mean absolute difference bounds the estimate of the KL divergence.
        assert row["sampling/sampling_logp_difference/mean"] < 0.01
        assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.01)


def test_the_statistics_of_rollouts_are_logged(trained: Path) -> None:
    first = metrics(trained)[0]
    assert 0 < first["exits/truncated_share"] <= 1
    assert 0 < first["probes/confidence_p10"] <= first["probes/confidence_p90"] <= 1
    assert first["steps/mu_mean"] >= 1
    assert first["steps/tokens_per_step"] > 1
    assert first["groups/all_correct_share"] + first["groups/all_wrong_share"] <= 1
    assert first["grading/unscored_share"] == 0
    assert 0 <= first["length/unfinished_share"] < 0.5


def test_the_output_holds_curves_card_configuration_and_calibration(trained: Path) -> None:
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    card = (trained / "README.md").read_text()
    assert "grading/accuracy" in card
    assert "arXiv 2604.16890" in card
    assert "rollout:" in (trained / "config.yaml").read_text()
    runs = json.loads((trained / "calibration.json").read_text())["bins"]
    assert sum(len(each["completion_tokens"]) for each in runs) >= 20


def wait_for(condition: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_run_resumes_with_the_losses_it_would_have_had(
    trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    log = tmp_path / "killed.log"

    process = start(output)
    wait_for(lambda: log.read_text(errors="replace").count("'reward':") >= 2, process)
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    assert process.returncode == 1
    assert "SIGTERM: the last good checkpoint is" in log.read_text(errors="replace")
    stopped = last_sealed(output)
    assert stopped is not None
    assert int(stopped.name.rpartition("-")[2]) in (2, 3)

    again = finish(output)  # without --resume nothing is touched
    assert "pass --resume to continue it" in again

    process = start(output, "--resume")
    wait_for(lambda: (last_sealed(output) or stopped).name == "checkpoint-4", process)
    process.kill()
    process.wait(60)
    (output / "checkpoint-5").mkdir()  # as if killed in the middle of a save
    assert "removed" in finish(output, "--resume")

    keys = ("loss", "grad_norm", "reward", "length/mean", "steps/k_mean")
    expected, found = metrics(trained), metrics(output)
    assert [[row[key] for key in keys] for row in found] == [
        [row[key] for key in keys] for row in expected
    ]
    counters = [
        json.loads((each / f"checkpoint-{STEPS}" / "stepgrpo.json").read_text())["counters"]
        for each in (trained, output)
    ]
    assert counters[0] == counters[1]


@pytest.mark.slow
def test_a_run_resumed_after_its_last_step_does_what_is_left_and_then_nothing(
    trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ended"
    shutil.copytree(trained, output)
    (output / "stepgrpo.json").unlink()  # as if killed in the calibration at its end
    (output / "calibration.json").unlink()
    finish(output, "--resume")
    steps = {each.name for each in output.glob("checkpoint-*")}
    assert steps == {each.name for each in trained.glob("checkpoint-*")}
    assert metrics(output) == metrics(trained)
    assert (output / "calibration.json").exists()
    weights = [(each / "model.safetensors").read_bytes() for each in (trained, output)]
    assert weights[0] == weights[1]
    before = {each: each.stat().st_mtime_ns for each in output.rglob("*.json")}
    assert "nothing to do" in finish(output, "--resume")
    assert {each: each.stat().st_mtime_ns for each in output.rglob("*.json")} == before


@pytest.fixture
def half_way(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run with its checkpoint of step 4 alone."""
    output = tmp_path / "half"
    output.mkdir()
    shutil.copytree(trained / "checkpoint-4", output / "checkpoint-4")
    return output


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_before_the_update(half_way: Path) -> None:
    # So small a temperature overflows in the trainer, and means greedy to the engine.
    printed = finish(half_way, "trl.temperature=1e-39", "--resume")
    assert "the loss of step 5 is nan" in printed
    assert f"the last good checkpoint is {half_way / 'checkpoint-4'}" in printed
    assert last_sealed(half_way) == half_way / "checkpoint-4"


@pytest.mark.slow
def test_a_disk_that_fills_in_a_save_leaves_the_last_good_checkpoint(half_way: Path) -> None:
    limited = ("prlimit", f"--fsize={4 * 2**20}")  # a write beyond it fails as on a full disk
    printed = finish(half_way, "--resume", before=limited)
    assert "checkpoint-6 could not be written" in printed
    assert "free some space" in printed
    assert last_sealed(half_way) == half_way / "checkpoint-4"


def test_the_output_is_served_as_it_is_with_its_calibration(trained: Path, tmp_path: Path) -> None:
    ours = (*OURS[:-1], str(trained))
    with running(ours, tmp_path / "server.log", "--exit-policy", "confidence") as server:
        problem = sample_problems(3, "test", 1)[0]
        response = httpx.post(
            f"{server.url}/v1/chat/completions",
            json={
                "model": "demo-base",  # the tests' servers all go by this name
                "messages": [{"role": "user", "content": problem.prompt}],
                "max_tokens": 200,
                "seed": 1,
            },
            timeout=60,
        ).json()
    assert response["choices"][0]["finish_reason"] == "stop"
    assert response["stepgrpo"]["saved"] is not None


QUICK = (
    *("trl.max_steps=2", "trl.save_steps=2", "trl.max_completion_length=200"),
    *("trl.per_device_train_batch_size=16", "calibration_prompts=0"),
)


@pytest.mark.slow
def test_two_ranks_train_as_one_with_statistics_over_both(tmp_path: Path) -> None:
    output = tmp_path / "ranks"
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    method = ("--config", "methods/grpo-lambda")  # it ranks the groups of the whole batch
    run = command(output, *QUICK, "rollout.kind=truncated", *method)
    with (tmp_path / "ranks.log").open("wb") as log:
        subprocess.run(
            [*launch, *run[1:]],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=ONE_THREAD,
            timeout=300,
            check=True,
        )
    seal = json.loads((output / "checkpoint-2" / "stepgrpo.json").read_text())
    assert seal["counters"]["rollouts"] == 2 * 2 * 16
    assert len(metrics(output)) == 2


@pytest.mark.slow
def test_an_adapter_is_served_beside_its_base(tmp_path: Path) -> None:
    output = tmp_path / "adapter"
    printed = finish(output, *QUICK, "lora={r: 8, alpha: 16}")
    assert (output / "adapter_config.json").exists(), printed[-3000:]
    for row in metrics(output):
        assert row["sampling/sampling_logp_difference/mean"] < 0.01
    flags = ("--enable-lora", "--lora-modules", f"tuned={output}", "--exit-policy", "confidence")
    with running(OURS, tmp_path / "server.log", *flags) as server:
        answers = [
            httpx.post(
                f"{server.url}/v1/chat/completions",
                json={
                    "model": model,
                    "messages": [
                        {"role": "user", "content": sample_problems(3, "test", 1)[0].prompt}
                    ],
                    "seed": 1,
                },
                timeout=60,
            ).json()
            for model in ("demo-base", "tuned")
        ]
    assert [each["model"] for each in answers] == ["demo-base", "tuned"]
    assert all(each["stepgrpo"]["probes"] > 0 for each in answers)
    # The adapter was not calibrated, and its base's lengths say nothing of it.
    assert not (output / "calibration.json").exists()
    assert answers[1]["stepgrpo"]["saved"] is None
