"""`stepgrpo-serve explain`: one request's timeline for people."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.records.explain import explain_line
from service.records.explain_command import explain_command

PROBES: list[dict[str, Any]] = [
    {
        "at": 0.1,
        "event": "probe",
        "probe": 0,
        "answered": 0.18,
        "policy": "confidence",
        "reasoning_tokens": 12,
        "steps": 1,
        "result": "declined",
        "confidence": 0.42,
    },
    {
        "at": 0.15,
        "event": "probe",
        "probe": 1,
        "answered": None,
        "policy": "confidence",
        "reasoning_tokens": 30,
        "steps": 2,
        "result": "refused",
        "cause": "load",
    },
    {
        "at": 0.2,
        "event": "probe",
        "probe": 2,
        "answered": 0.25,
        "policy": "confidence",
        "reasoning_tokens": 50,
        "steps": 2,
        "result": "fired",
        "confidence": 0.9914,
    },
    {
        "at": 0.24,
        "event": "probe",
        "probe": 3,
        "answered": None,
        "policy": "confidence",
        "reasoning_tokens": 60,
        "steps": 3,
        "result": "unused",
    },
]
LINE: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.678Z",
    "id": "chatcmpl-1f",
    "index": 0,
    "model": "demo-base",
    "policy": "confidence",
    "label": "confidence",
    "exit_reason": "confident",
    "shadow_reason": None,
    "abstained": None,
    "outcome": "completed",
    "finish_reason": "stop",
    "steps": 2,
    "prompt_tokens": 32,
    "reasoning_tokens": 51,
    "completion_tokens": 65,
    "discarded_tokens": 7,
    "probe_tokens": 12,
    "probes": 3,
    "saved": {"tokens": 44, "low": 2, "high": 100, "net": 32, "method": "predicted"},
    "seconds": {"queue": 0.004, "first_token": 0.05, "thinking": 0.2, "answer": 0.1, "total": 0.4},
    "timeline": [
        {"at": 0.0, "event": "arrived", "prompt_tokens": 32},
        {"at": 0.05, "event": "first_token"},
        *PROBES,
        {
            "at": 0.25,
            "event": "cut",
            "reason": "confident",
            "reasoning_tokens": 51,
            "discarded_tokens": 7,
        },
        {"at": 0.26, "event": "closing", "injected_tokens": 3},
        {"at": 0.3, "event": "answer"},
        {"at": 0.4, "event": "end", "outcome": "completed"},
    ],
}
TEXT = """\
chatcmpl-1f, sequence 0
demo-base, policy confidence, ended 2026-01-02T03:04:05.678Z

     0.000 s  arrived: 32 prompt tokens; 0.004 s in the engine's queue
     0.050 s  first token
     0.100 s  probe 0 asked by confidence after 12 reasoning tokens, step 1
     0.150 s  probe 1 refused by confidence after 30 reasoning tokens, step 2: load
     0.180 s  probe 0 answered: declined, confidence 0.42
     0.200 s  probe 2 asked by confidence after 50 reasoning tokens, step 2
     0.240 s  probe 3 asked by confidence after 60 reasoning tokens, step 3
     0.240 s  probe 3 never answered: unused
     0.250 s  probe 2 answered: fired, confidence 0.9914
     0.250 s  thinking cut (51 reasoning tokens): confident; 7 tokens past it dropped
     0.260 s  closing injected: 3 tokens; answer asked for
     0.300 s  first token of the answer
     0.400 s  completed, stop: 65 tokens delivered

Thinking: 51 tokens, 2 steps; exit reason: confident.
Cost: 3 probes; 12 probe and 7 discarded tokens.
Saved: 44 tokens (2 to 100), net of probes 32; method: predicted."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    write(path, LINE)
    return path


def write(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def output(capsys: pytest.CaptureFixture[str], *arguments: object, **environment: str) -> str:
    explain_command(list(map(str, arguments)), environment)
    return capsys.readouterr().out.rstrip("\n")


def refused(*arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        explain_command(list(map(str, arguments)), {})
    message = str(end.value)
    assert message.startswith("stepgrpo-serve explain: ")
    assert "\n" not in message
    return message


def test_events_are_in_chronological_order(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "chatcmpl-1f", "--log", log) == TEXT
    assert output(capsys, "chatcmpl-1f", STEPGRPO_EXIT_LOG=str(log)) == TEXT


def test_the_command_line_has_it(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["stepgrpo-serve", "explain", "chatcmpl-1f", "--log", str(log)])
    main()
    assert capsys.readouterr().out == TEXT + "\n"


def test_what_did_not_happen_has_no_line() -> None:
    without = LINE | {
        "abstained": "tools",
        "label": "holdout",
        "exit_reason": "natural",
        "shadow_reason": "confident",
        "finish_reason": None,
        "outcome": "aborted",
        "saved": None,
        "seconds": LINE["seconds"] | {"queue": None},
        "timeline": [
            LINE["timeline"][0],
            {"at": 0.2, "event": "thinking_end", "reason": "natural", "reasoning_tokens": 51},
            {"at": 0.3, "event": "something new"},
            {"at": 0.4, "event": "end", "outcome": "aborted"},
        ],
        "text": "abc",
    }
    assert explain_line(without) == (
        "chatcmpl-1f, sequence 0\n"
        "demo-base, policy confidence (counted as holdout), ended 2026-01-02T03:04:05.678Z\n"
        "The policy did not act, or not all of it: tools.\n"
        "\n"
        "     0.000 s  arrived: 32 prompt tokens\n"
        "     0.200 s  thinking ended (51 reasoning tokens): natural\n"
        "     0.300 s  something new\n"
        "     0.400 s  aborted: 65 tokens delivered\n"
        "\n"
        "Thinking: 51 tokens, 2 steps; exit reason: natural.\n"
        "In shadow mode; the policy would have exited: confident.\n"
        "Cost: 3 probes; 12 probe and 7 discarded tokens.\n"
        "Saved: no estimate.\n"
        "Text: 3 characters in the log; --format json shows them."
    )


def test_several_sequences_have_a_section_each(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log, LINE | {"id": "chatcmpl-2f"}, LINE | {"index": 1})
    first, second = output(capsys, "chatcmpl-1f", "--log", log).split("\n\n\n")
    assert first == TEXT
    assert second == TEXT.replace("sequence 0", "sequence 1")


def test_json_is_the_raw_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "chatcmpl-1f", "--log", log, "--format", "json")
    assert out == log.read_text().rstrip("\n")


def test_lines_that_are_none_are_passed_over(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log.open("ab") as file:
        half = json.dumps(LINE)[:90].encode()
        file.write(
            half + b'\n\n"chatcmpl-1f"\n{"id": 3, "x": "chatcmpl-1f"}\n\xff\xfe chatcmpl-1f\n'
        )
    write(log, LINE | {"index": 1, "text": "it said chatcmpl-1f"}, {"id": "x", "y": "chatcmpl-1f"})
    assert output(capsys, "chatcmpl-1f", "--log", log).count("sequence") == 2


def test_a_name_that_is_not_there(log: Path) -> None:
    assert "has no request chatcmpl-9: it may be in a rotated file" in refused(
        "chatcmpl-9", "--log", log
    )
    assert "has no request 1f: did you mean chatcmpl-1f?" in refused("1f", "--log", log)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist; --exit-log creates it" in refused("x", "--log", tmp_path / "nope")
    assert "pass --log FILE" in refused("x")
    assert "Is a directory" in refused("x", "--log", tmp_path)


@pytest.mark.parametrize("change", [{"timeline": 3}, {"seconds": None}, {"timeline": [{"at": 1}]}])
def test_a_line_of_something_else_is_named(log: Path, change: dict[str, Any]) -> None:
    write(log, LINE | {"id": "chatcmpl-2f"} | change)
    assert "line 2, is not a line of a request log" in refused("chatcmpl-2f", "--log", log)


def test_an_id_cannot_steer_the_terminal(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "chatcmpl-\x1b[2J\r\nforged \u202e\u2028"
    write(log, LINE | {"id": evil})
    out = output(capsys, evil, "--log", log)
    head, rest = out.split("\n", 1)
    assert head == "chatcmpl-\\x1b[2J\\r\\nforged \\u202e\\u2028, sequence 0"
    assert rest == TEXT.split("\n", 1)[1]
    assert "\\x1b" in refused("a\x1b", "--log", log)


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        explain_command(["--help"], {})
    text = capsys.readouterr().out
    assert "--exit-log FILE" in text
    assert "stepgrpo-serve explain chatcmpl-" in text
