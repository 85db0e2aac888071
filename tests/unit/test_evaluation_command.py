"""The flags of `stepgrpo-train eval`: contenders, refusals, and what is evaluated already."""

import json
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_core import ExitSettings, InvalidSetting
from tests.support.servers import MODEL
from tests.support.training.records import record
from training.cli import build_parser
from training.config.layers import InvalidConfig
from training.evaluation.command import contenders_of, exit_of
from training.evaluation.records import Contender, append_questions, open_records
from training.evaluation.run import plan, seed_of
from training.evaluation.tasks import draws_of, load_task

NONE, CONFIDENCE = ExitSettings(), ExitSettings(policy="confidence")


def evaluate(*flags: str) -> None:
    args = build_parser().parse_args(["eval", *flags])
    args.run(args)


def test_every_model_is_evaluated_under_every_policy_and_the_baseline_once() -> None:
    found, baseline = contenders_of(
        ["base=models/b", "ours=out/run1"], ["none", "confidence"], "base", "none"
    )
    assert found == [
        Contender("base", "models/b", NONE),
        Contender("base+confidence", "models/b", CONFIDENCE),
        Contender("ours", "out/run1", NONE),
        Contender("ours+confidence", "out/run1", CONFIDENCE),
    ]
    assert baseline == "base"


def test_the_baseline_may_be_another_model_with_a_policy_of_its_own() -> None:
    found, baseline = contenders_of(["Qwen/Qwen3-8B"], ["none"], "b=org/B", "confidence")
    assert [each.name for each in found] == ["b+confidence", "Qwen3-8B"]
    assert (baseline, found[0].model) == ("b+confidence", "org/B")


def test_a_name_is_the_last_part_of_the_path_and_names_must_differ() -> None:
    found, _ = contenders_of([str(MODEL)], ["none"], str(MODEL), "none")
    assert [each.name for each in found] == ["demo-base"]
    with pytest.raises(InvalidSetting, match="two have one name; use NAME=PATH"):
        contenders_of(["a/m", "b/m"], ["none"], "m", "none")
    with pytest.raises(InvalidSetting, match=r"baseline='b/m' .* m names another --model"):
        contenders_of(["a/m"], ["none"], "b/m", "none")


def test_a_policy_takes_fields_of_its_settings_by_type() -> None:
    found = exit_of("confidence:threshold=0.9,max_probes=3,markers=[Wait, Hmm],skip_first=false")
    assert found == ExitSettings(
        "confidence", 0.9, max_probes=3, markers=("Wait", "Hmm"), skip_first=False
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confident", "policy='confident' .* did you mean 'confidence'"),
        ("confidence:treshold=0.9", r"policy\.treshold is unknown: did you mean 'threshold'"),
        ("confidence:threshold=2", r"policy\.threshold=2.* from 0 to 1"),
        ("confidence:max_probes=many", r"policy\.max_probes='many' .* whole number"),
        ("confidence:threshold", "write section.key=value"),
    ],
)
def test_a_policy_that_cannot_be_honored_is_refused(text: str, message: str) -> None:
    with pytest.raises((InvalidSetting, InvalidConfig), match=message):
        exit_of(text)


MODELS = ("--model", str(MODEL), "--baseline", str(MODEL))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tasks", "gsm9k"), "tasks='gsm9k' .* gsm8k"),
        (("--tasks", ","), "tasks=',' .* name some of"),
        (("--tasks", "demo", "--limit", "0"), "limit=0"),
        (("--tasks", "demo", "--samples", "0"), "samples=0"),
        (("--tasks", "demo", "--data", "gsm8k=a.jsonl"), "data='gsm8k=a.jsonl' .* one of demo"),
        (("--tasks", "demo", "--data", "demo"), "write TASK=PATH"),
        (("--tasks", "demo", "--policy", "no"), "policy='no'"),
        (("--tasks", "demo", "--sampling", "gsm8k:samples=2"), "sampling='gsm8k:samples=2'"),
        (("--tasks", "demo", "--sampling", "demo:seed=2"), "sampling='seed'"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_loaded(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        evaluate(*MODELS, "--output", str(tmp_path / "out"), *flags)
    assert not (tmp_path / "out").exists()


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"neither config\.json nor adapter_config\.json"):
        evaluate("--model", str(tmp_path), "--baseline", str(tmp_path), "--tasks", "demo",
                 "--output", str(tmp_path / "out"))  # fmt: skip


def test_contenders_whose_names_become_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"name='a b' .* use --model NAME=PATH"):
        plan([Contender("a_b", "x"), Contender("a b", "y")], {}, {}, tmp_path)


def test_the_demo_alone_is_evaluated_in_float32_and_others_as_vllm_would(tmp_path: Path) -> None:
    tasks = {"demo": load_task("demo", limit=2)}
    draws = {name: draws_of(name) for name in ("demo", "gsm8k")}
    contender = Contender("a", str(MODEL))
    assert plan([contender], tasks, draws, tmp_path)[0].settings.dtype == "float32"
    both = plan([contender], {**tasks, "gsm8k": tasks["demo"]}, draws, tmp_path)
    assert {each.settings.dtype for each in both} == {"auto"}
    given = plan([contender], tasks, draws, tmp_path, dtype="bfloat16")
    assert given[0].settings.dtype == "bfloat16"


def test_seeds_are_equal_for_all_contenders_and_differ_otherwise() -> None:
    places = [
        (seed, task, question, sample)
        for seed in (0, 1)
        for task in ("demo", "gsm8k")
        for question in ("00001", "00002")
        for sample in range(3)
    ]
    seeds = [seed_of(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [seed_of(*place) for place in places]


def finished(output: Path, limit: int) -> None:
    """Files of a whole evaluation of the demo's first problems."""
    tasks = {"demo": load_task("demo", limit=limit)}
    draws = {"demo": draws_of("demo", samples=2)}
    contenders = [Contender("demo-base", str(MODEL), NONE)]
    contenders.append(Contender("demo-base+confidence", str(MODEL), CONFIDENCE))
    for work in plan(contenders, tasks, draws, output, limit=limit):
        made_with: dict[str, Any] = {
            "versions": {},
            "hardware": "a CPU",
            "commit": None,
            "dtype": "float32",
        }
        open_records(work.path, work.settings, made_with)
        size = 100 if work.contender.exit == NONE else 50
        append_questions(
            work.path,
            [
                [record(int(each.id), s, tokens=size + s) for s in range(2)]
                for each in work.questions
            ],
        )
        assert not work.left()


COMMAND = (*MODELS, "--tasks", "demo", "--samples", "2", "--policy", "confidence")


def test_what_is_evaluated_already_is_reported_without_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, 5)
    evaluate(*COMMAND, "--limit", "5", "--output", str(tmp_path))
    assert "| demo-base+confidence | 50.2" in capsys.readouterr().out
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["baseline"] == "demo-base"
    found = whole["results"]["demo"]["demo-base+confidence"]
    assert found["versus"]["ratio_of_means"]["value"] == pytest.approx(50.5 / 100.5)
    assert set(whole["run"]) == {"date", "seconds"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--limit", "6"), r"evaluated with limit=5, not 6; set it back, delete the file, or use"),
        (("--limit", "5", "--seed", "1"), "seed=0, not 1"),
        (("--limit", "5", "--max-tokens", "800"), r"draws\.sampling\.max_tokens=900, not 800"),
        (("--limit", "5", "--dtype", "auto"), "dtype='float32', not 'auto'"),
    ],
)
def test_an_output_of_other_settings_is_not_mixed_with_these(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    finished(tmp_path, 5)
    before = (tmp_path / "demo-base" / "demo.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        evaluate(*COMMAND, *flags, "--output", str(tmp_path))
    assert (tmp_path / "demo-base" / "demo.jsonl").read_bytes() == before
