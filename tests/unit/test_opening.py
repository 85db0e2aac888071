"""How completions begin, as vLLM's parsers read them: real ones, the demo model's prompts."""

from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.parser_manager import ParserManager
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.opening import Openings, prepend_end
from service.engine.request import EngineRequest
from service.engine.response_parser import ResponseParser
from stepgrpo_core.families.prompts import PromptState
from stepgrpo_core.families.thinking import special_ids
from tests.support.models import TOKENIZER
from tests.support.service.thinking import HEADER, THINKING, TURN

PARSED: dict[str, Any] = {"reasoning_parser_kwargs": {"chat_template_kwargs": {}}}
OFF: dict[str, Any] = {
    "reasoning_parser_kwargs": {"chat_template_kwargs": {"enable_thinking": False}}
}
DELTA, WHOLE = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY
USER = f"<|im_start|>user\n1+1? </think><|im_end|>\n{HEADER}"
CLOSED = f"{HEADER}<think>\nso far</think>\n\nThe sum"
END, EOS = THINKING.end_id, TOKENIZER.eos_token_id


def noted(
    prompt: str,
    options: dict[str, Any],
    kind: RequestOutputKind = DELTA,
    *,
    parser: str = "qwen3",
    **params: Any,
) -> EngineRequest:
    openings = Openings(
        TOKENIZER,
        THINKING,
        special_ids(TOKENIZER),
        TURN,
        ResponseParser(parser, TOKENIZER, None),
    )
    ids = TOKENIZER.encode(prompt, add_special_tokens=False)
    asked = SamplingParams(output_kind=kind, **params)
    return openings.resolve(EngineRequest("r", {"prompt_token_ids": ids}, asked, options))


@pytest.mark.parametrize("kind", [DELTA, WHOLE])
@pytest.mark.parametrize("prompt", [HEADER, USER, f"{HEADER}The sum is"])
@pytest.mark.parametrize("parser", ["qwen3", "nemotron_v3"])
def test_what_the_responses_parser_reads_as_reasoning_is_thinking(
    kind: RequestOutputKind, prompt: str, parser: str
) -> None:
    opening = noted(prompt, PARSED, kind, parser=parser).opening
    assert (opening.standing, opening.implied) == (PromptState.BEFORE, True)
    assert not opening.may_answer


@pytest.mark.parametrize("parser", ["deepseek_v3", "granite", "no-such", "openai_gptoss", ""])
def test_what_it_reads_as_content_is_an_answer(parser: str) -> None:
    assert not noted(HEADER, PARSED, parser=parser).opening.implied


def test_a_parser_that_looks_through_the_whole_prompt_has_seen_an_end() -> None:
    """deepseek_r1's streams show all as content then, its whole responses as reasoning."""
    assert not noted(USER, PARSED, DELTA, parser="deepseek_r1").opening.implied
    assert noted(USER, PARSED, WHOLE, parser="deepseek_r1").opening.implied


def test_thinking_that_is_switched_off_is_none() -> None:
    assert not noted(HEADER, OFF).opening.implied
    opening = noted(CLOSED, OFF, WHOLE).opening
    assert (opening.standing, opening.end) == (PromptState.CLOSED, "")


@pytest.mark.parametrize("parser", ["", "qwen3"])
def test_without_a_parsed_response_a_turn_of_the_template_tells(parser: str) -> None:
    for prompt, implied in ((HEADER, True), (USER, True), ("1+1=", False), (CLOSED, False)):
        opening = noted(prompt, {}, parser=parser).opening
        assert opening.implied is implied
        assert not opening.end
    assert noted(HEADER, {}, parser=parser).opening.may_answer
    assert not noted(HEADER, {}, parser="deepseek_v3").opening.implied


def test_batches_of_chats_are_parsed_too() -> None:
    opening = noted(HEADER, {"reasoning_ended": None}, WHOLE).opening
    assert (opening.implied, opening.may_answer) == (True, False)
    assert noted(HEADER, {"reasoning_ended": None}, WHOLE, parser="").opening.may_answer


def test_a_thought_that_the_prompt_opens_needs_no_parser() -> None:
    assert noted(f"{HEADER}<think>\n", {}, parser="").opening.standing is PromptState.OPENED
    assert noted(f"{HEADER}<think>\nSo", PARSED).opening.standing is PromptState.INSIDE


def test_a_prompt_without_ids_is_left_alone() -> None:
    openings = Openings(
        TOKENIZER, THINKING, frozenset(), TURN, ResponseParser("qwen3", TOKENIZER, None)
    )
    request = EngineRequest("r", {"prompt_embeds": 1}, SamplingParams(stop_token_ids=[5]), {})
    assert openings.resolve(request) is request


def test_stop_tokens_of_the_text_are_the_answers() -> None:
    five = TOKENIZER.encode("5")[0]
    assert noted(HEADER, {}, stop_token_ids=[five, EOS, END]).stop_ids == {five, END}
    assert not noted(HEADER, {}, stop_token_ids=[EOS]).stops
    assert noted(HEADER, {}, stop=["5"]).stops


# A prefill that closes the thinking.


def parsed_whole(output: RequestOutput, options: dict[str, Any], *, tools: bool) -> Any:
    request = ChatCompletionRequest(messages=[], model="m")
    (completion,) = output.outputs
    return made(options, tools=tools).parse(
        completion.text,
        request,
        enable_auto_tools=tools,
        model_output_token_ids=completion.token_ids,
    )[:2]


def parsed_stream(
    output: RequestOutput, prompt: list[int], options: dict[str, Any], *, tools: bool
) -> tuple[str, str]:
    request = ChatCompletionRequest(messages=[], model="m")
    parser, (completion,) = made(options, tools=tools), output.outputs
    said = {"reasoning": "", "content": ""}
    for place, token in enumerate(completion.token_ids, 1):
        delta = parser.parse_delta(
            TOKENIZER.decode([token]),
            [token],
            request,
            prompt,
            finished=place == len(completion.token_ids),
        )
        for name in said if delta else ():
            said[name] += getattr(delta, name) or ""
    return said["reasoning"], said["content"]


def made(options: dict[str, Any], *, tools: bool) -> Any:
    tool = "hermes" if tools else None
    cls = ParserManager.get_parser(tool, "qwen3", tools, "m")
    assert cls is not None
    return cls(TOKENIZER, **options["reasoning_parser_kwargs"])


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("options", [PARSED, OFF], ids=["on", "off"])
@pytest.mark.parametrize("said", [" is 2.", "\n\nIt is 2.\n"])
def test_whole_and_streamed_answers_agree_after_a_closed_thought(
    said: str, options: dict[str, Any], tools: bool
) -> None:
    request = noted(CLOSED, options, WHOLE)
    ids = TOKENIZER.encode(said, add_special_tokens=False)
    completion = CompletionOutput(0, said, ids, None, None, finish_reason="stop")
    output = RequestOutput("r", None, request.prompt_ids, None, [completion], finished=True)
    streamed = parsed_stream(output, request.prompt_ids, options, tools=tools)
    reasoning, content = parsed_whole(
        prepend_end(output, request.opening.end), options, tools=tools
    )
    assert (reasoning or "", content) == streamed == ("", said)
    assert completion.token_ids == ids
