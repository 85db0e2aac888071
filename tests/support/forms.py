"""Answers in a prescribed form: a schema, a tool, and the biases that the demo model needs."""

import json

from tests.support.models import TOKENIZER

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "pattern": "^[0-9]{2}$"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {"name": "give", "parameters": SCHEMA, "strict": True}
TOOLS = {"tools": [{"type": "function", "function": TOOL}]}
# The grammars of tools allow white space, which the demo model would write without end.
TERSE = {"\n": -5, " ": -5, "\n\n": -5, "\t": -100, "\r": -100, '"': 8, "}": 8, ":": 8}
BIAS = {str(TOKENIZER.encode(text)[0]): bias for text, bias in TERSE.items()}
JSON = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def check_json(text: str) -> None:
    answer = json.loads(text)
    assert answer.keys() == {"answer"}
    assert answer["answer"].isdigit()
    assert text == text.strip()  # the grammar begins directly after the thinking
