"""Prompts are rendered in one place: training, calibration and evaluation ask alike."""

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from stepgrpo_core import InvalidSetting
from tests.support.servers import MODEL
from training.cli import build_parser
from training.config.schema import dump_config, load_config, prompt_template
from training.data.prompts import PLAIN, PromptTemplate, prompt_template_of
from training.evaluation.command import _tell_other_prompts
from training.evaluation.records import Contender, open_records, read_records
from training.evaluation.report import markdown
from training.evaluation.run import _requests, plan
from training.evaluation.tasks import draws_of, load_task
from training.grpo import train
from training.rollouts.offline import Engine
from training.rollouts.vllm_engine import format_of

ROOT = Path(__file__).parents[2]
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
TOLD = PromptTemplate("Be brief.", {"enable_thinking": False})
EVAL = ("eval", "--model", "m", "--baseline", "m", "--tasks", "demo", "--output", "o")
FLAGS = ("--system-prompt", "Be brief.", "--chat-template-kwargs", '{"enable_thinking": false}')


def text(ids: Any) -> str:
    return str(TOKENIZER.decode(ids))


def test_a_prompt_holds_the_system_message_and_the_variables_of_the_template() -> None:
    assert text(TOLD.render(TOKENIZER, "2+2?")) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert text(PLAIN.render(TOKENIZER, "2+2?")).endswith("2+2?<|im_end|>\n<|im_start|>assistant\n")
    assert TOLD.render(TOKENIZER, TOLD.messages("2+2?")) == TOLD.render(TOKENIZER, "2+2?")


def test_nothing_else_in_training_renders_a_chat() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "training").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "apply_chat_template"
    ]
    assert found == ["training/data/prompts.py"]


def test_trainer_calibration_and_evaluation_make_the_same_prompt(tmp_path: Path) -> None:
    config = load_config(
        ["demo"],
        ["data.system_prompt=Be brief.", "trl.chat_template_kwargs={enable_thinking: false}"],
    )
    template = prompt_template(config)
    assert template == TOLD
    questions = load_task("demo", limit=1)
    row = SimpleNamespace(prompt=questions[0].prompt, answer="1")
    (asked,) = train._dataset([row], template)["prompt"]  # type: ignore[list-item]
    trained = PromptTemplate(chat_template_kwargs=template.chat_template_kwargs)
    wanted = trained.render(TOKENIZER, asked)
    assert "Be brief." in text(wanted)
    engine = Engine(
        SimpleNamespace(
            get_tokenizer=lambda: TOKENIZER,
            llm_engine=SimpleNamespace(model_config=SimpleNamespace(max_model_len=1024)),
        ),
        prompts=template,
    )
    assert engine.chat_prompt(row.prompt) == wanted
    (work,) = plan(
        [Contender("a", str(MODEL))],
        {"demo": questions},
        {"demo": draws_of("demo", samples=1)},
        tmp_path,
        prompts=template,
    )
    (request,) = _requests(work, questions, TOKENIZER, format_of(TOKENIZER, "\n</think>\n\n"))
    assert request.prompt_ids == wanted


@pytest.mark.parametrize(
    "command", [EVAL, ("calibrate", "--model", "m", "--demo", "20", "--output", "o")]
)
def test_flags_say_it_and_what_is_no_json_object_is_refused(command: tuple[str, ...]) -> None:
    parse = build_parser().parse_args
    assert prompt_template_of(parse([*command, *FLAGS])) == TOLD
    assert prompt_template_of(parse(list(command))) == PLAIN
    for value in ("{", "[]", "no"):
        with pytest.raises(InvalidSetting, match=r"chat-template-kwargs.*write"):
            prompt_template_of(parse([*command, "--chat-template-kwargs", value]))


def test_files_made_with_other_prompts_are_not_mixed_in_either_direction(tmp_path: Path) -> None:
    def work(template: PromptTemplate, folder: str) -> Any:
        questions = {"demo": load_task("demo", limit=1)}
        contender = [Contender("a", str(MODEL))]
        draws = {"demo": draws_of("demo")}
        return plan(contender, questions, draws, tmp_path / folder, prompts=template)[0]

    told, plain = work(TOLD, "told"), work(PLAIN, "plain")
    assert "prompts" not in plain.settings.as_json()  # as in older files
    for made, other in ((told, plain), (plain, told)):
        open_records(made.path, made.settings, {})
        assert read_records(made.path, made.settings) == []
        with pytest.raises(ValueError, match=r"prompts\.system_prompt"):
            read_records(made.path, other.settings)


def test_the_report_says_what_the_prompts_hold() -> None:
    sampling = {"max_tokens": 9, "temperature": 1, "top_p": 1, "min_p": 0.1, "top_k": 0}
    settings: dict[str, Any] = {
        "draws": {"samples": 1, "sampling": sampling},
        "dtype": "auto",
        "seed": 0,
        "questions": "q",
        "limit": None,
        "model": "m",
        "weights": "w",
        "exit": {"policy": "none"},
        "prompts": {
            "system_prompt": "Be *brief*.",
            "chat_template_kwargs": {"enable_thinking": False},
        },
    }
    made = {"hardware": "h", "dtype": "d", "versions": {}, "commit": "c"}
    heads = {"a": {"demo": {"settings": settings, "made_with": made}}}
    shown = markdown({"demo": {}}, baseline=None, heads=heads)
    assert "top_k all, min_p 0.1, dtype" in shown
    assert 'Chat template: enable\\_thinking False. System prompt: "Be \\*brief\\*.".' in shown


def test_a_run_that_is_asked_otherwise_than_it_was_trained_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(["demo"], ["data.system_prompt=Be brief."])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    _tell_other_prompts(str(tmp_path), PLAIN)
    assert "system_prompt='Be brief.'" in capsys.readouterr().out
    _tell_other_prompts(str(tmp_path), prompt_template(config))
    (tmp_path / "config.yaml").write_text("a: {b: 1}")
    _tell_other_prompts(str(tmp_path), PLAIN)
    _tell_other_prompts("hub/name", PLAIN)
    assert capsys.readouterr().out == ""
