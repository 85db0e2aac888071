"""Families where the trainer, the calibrator and the evaluation are told: as the server."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.config.server import add_flags as serve_flags
from service.config.server import read_defaults
from service.params.model import model_of
from stepgrpo_core import ExitSettings, InvalidSetting
from stepgrpo_core.families.table import FAMILIES, FamilyChoice
from tests.support.core.families import CHATML, THINK, tokenizer_of
from training.cli import build_parser
from training.config.families import choice_of
from training.config.schema import InvalidConfig, dump_config, load_config
from training.evaluation.command import contenders_of
from training.evaluation.records import Settings
from training.evaluation.tasks import draws_of
from training.grpo.train import train
from training.rollouts.vllm_engine import format_of
from training.run.seals import SEAL

YAML = """
family: mine
families:
  mine:
    start: <reason>
    end: </reason>
    tools: [<call>]
"""
MINE = tokenizer_of(CHATML, ("<reason>", "</reason>", "<call>"), None)
CLOSING = ExitSettings().closing_text
DEMO = Path(__file__).parents[2] / "models" / "demo-base"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


EVAL = ("eval", "--model", "m", "--baseline", "m", "--tasks", "demo", "--output", "o")
CALIBRATE = ("calibrate", "--model", "m", "--demo", "3", "--output", "o")


@pytest.mark.parametrize("command", [EVAL, CALIBRATE])
def test_the_servers_file_tells_the_trainers_commands_the_same_family(
    command: tuple[str, ...], file: Path
) -> None:
    args = build_parser().parse_args([*command, "--exit-config", str(file)])
    form = format_of(MINE, CLOSING, choice_of(args))
    parser = argparse.ArgumentParser()
    serve_flags(parser)
    defaults = read_defaults(parser.parse_args(["--exit-config", str(file)]), {})
    served = model_of(MINE, ExitSettings(), family=defaults.family, families=defaults.families)
    assert served.writing is not None
    assert form.thinking == served.writing.thinking
    assert form.thinking.tool_ids == {MINE.convert_tokens_to_ids("<call>")}
    assert form.family.name == "mine"


@pytest.mark.parametrize("command", [EVAL, CALIBRATE])
def test_the_flag_goes_before_the_file(command: tuple[str, ...], file: Path) -> None:
    flags = ["--exit-config", str(file), "--exit-family", "glm"]
    assert choice_of(build_parser().parse_args([*command, *flags])).name == "glm"
    assert choice_of(build_parser().parse_args(list(command))) == FamilyChoice()


def test_a_family_that_is_unknown_or_cannot_be_read_is_refused(file: Path) -> None:
    parse = build_parser().parse_args
    with pytest.raises(InvalidSetting, match=r"family='glmm' .*use one of qwen3"):
        choice_of(parse([*EVAL, "--exit-family", "glmm"]))
    file.write_text("families: {mine: {strat: <a>}}", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="did you mean 'start'"):
        choice_of(parse([*EVAL, "--exit-config", str(file)]))
    file.write_text("3", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="exit-config"):
        choice_of(parse([*EVAL, "--exit-config", str(file)]))


def test_a_run_names_and_describes_its_models_family() -> None:
    mine = '{"mine": {"start": "<reason>", "end": "</reason>"}}'
    config = load_config(["demo"], ["model.family=mine", f"model.families={mine}"])
    form = format_of(MINE, CLOSING, config.model.choice)
    assert form.thinking.start_id == MINE.convert_tokens_to_ids("<reason>")
    assert "family: mine" in dump_config(config)
    with pytest.raises(InvalidConfig, match="family='glmm'"):
        load_config(["demo"], ["model.family=glmm"])
    with pytest.raises(InvalidConfig, match="use a text"):
        load_config(["demo"], ['model.families={"mine": {"start": 3}}'])


def test_a_tokenizer_that_is_not_known_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidSetting, match=r"model\.family.*--exit-family"):
        format_of(MINE, CLOSING)
    think = format_of(MINE, CLOSING, FamilyChoice("think-text"))
    assert think.thinking.end_text == "</think>"


def test_a_grpo_run_reads_the_tokenizer_by_the_family_of_its_configuration(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    shutil.copytree(DEMO, model)
    for file in (model / "tokenizer.json", model / "chat_template.jinja"):
        file.write_text(file.read_text("utf-8").replace("think>", "reason>"), "utf-8")
    checkpoint = output / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / SEAL).touch()
    given = [f"model.name={model}", f"output={output}", "trl.bf16=false"]
    family = 'model.families={"mine": {"start": "<reason>", "end": "</reason>"}}'
    with pytest.raises(FileExistsError, match="pass --resume"):  # after the checks of the tokenizer
        train(load_config(["demo"], [*given, "model.family=mine", family]))
    with pytest.raises(InvalidSetting, match="how it writes thinking is not known"):
        train(load_config(["demo"], given))


def test_records_of_an_evaluation_depend_on_the_family() -> None:
    def settings(**family: Any) -> dict[str, Any]:
        draws = draws_of("demo", samples=1)
        return Settings(
            "c", "m", "", ExitSettings(), "demo", None, draws, "auto", 0, "vllm", "q", **family
        ).as_json()

    chosen = FamilyChoice("mine", {"mine": {"tools": ["<call>"]}})
    assert "family" not in settings()  # as in files from before it could be said
    assert settings(family=chosen)["family"]["described"] == {"mine": {"tools": ["<call>"]}}
    assert json.dumps(settings(family=chosen)) != json.dumps(settings(family=FamilyChoice("think")))
    contenders, _ = contenders_of(["m"], ["none"], "m", "none")
    assert contenders[0].family == FamilyChoice()


def test_marks_of_tokens_need_their_tokens() -> None:
    assert (FAMILIES["think"].start, FAMILIES["think"].end) == THINK
    with pytest.raises(InvalidSetting, match="cannot write <think>"):
        format_of(MINE, CLOSING, FamilyChoice("think"))
