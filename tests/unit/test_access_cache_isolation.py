"""Cache salts by API key."""

from collections.abc import Iterator
from typing import Any

import pytest

from service.access.cache_isolation import IsolatedEngine
from service.records.sequence import RequestContext, current_request

PROMPT = {"prompt_token_ids": [1, 2]}


class Recorder:
    """An engine that returns its prompt."""

    errored = False

    def generate(self, prompt: Any, *args: Any, **options: Any) -> Any:
        return prompt, args, options

    encode = generate


@pytest.fixture
def engine() -> Iterator[IsolatedEngine]:
    before = current_request.set(None)
    yield IsolatedEngine(Recorder())
    current_request.reset(before)


def salt(engine: IsolatedEngine, caller: bytes, own: str | None = None) -> str:
    current_request.set(RequestContext(caller))
    prompt, args, options = engine.generate(PROMPT | ({"cache_salt": own} if own else {}), 1, a=2)
    assert (prompt["prompt_token_ids"], args, options) == ([1, 2], (1,), {"a": 2})
    return str(prompt["cache_salt"])


def test_a_caller_has_one_salt_and_no_other_has_it(engine: IsolatedEngine) -> None:
    salts = [salt(engine, caller, own) for caller in (b"a", b"b") for own in (None, "x", "y")]
    assert len(set(salts)) == 6
    assert salt(engine, b"a", "x") == salts[1]
    assert salt(IsolatedEngine(Recorder()), b"a") != salts[0], "nor is it known"
    assert PROMPT == {"prompt_token_ids": [1, 2]}


def test_pooling_is_of_its_tenant_too(engine: IsolatedEngine) -> None:
    current_request.set(RequestContext(b"a"))
    assert engine.encode(PROMPT)[0]["cache_salt"] == salt(engine, b"a")


def test_nobodys_prompts_and_texts_stay_as_they_are(engine: IsolatedEngine) -> None:
    assert engine.generate(PROMPT)[0] is PROMPT
    current_request.set(RequestContext())
    assert engine.generate(PROMPT)[0] is PROMPT
    current_request.set(RequestContext(b"a"))
    assert engine.generate("text")[0] == "text"
    assert engine.errored is False
