"""A request's body: what it asks for, and what vLLM must be told so that it comes true."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.apis import BATCH, CHAT, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES
from service.controls.near import CONTAINERS, misplaced_parameter
from service.controls.parameters import CONTAINER, FOREIGN, Asked, BadParameter, Parameter, Wish

__all__ = ["Template", "carry", "read_body"]

_KWARGS = "chat_template_kwargs"
_EFFORT_PLACES = {
    CHAT: "reasoning_effort",
    BATCH: "reasoning_effort",
    INVOCATIONS: "reasoning_effort",
    RESPONSES: "reasoning.effort",
    MESSAGES: "output_config.effort",
}
_ANTHROPIC_EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Template:
    """What the served model's chat template can do."""

    switches: tuple[str, ...] = ()
    """Its variables that switch thinking off."""
    thinks: bool = True
    """The model writes thinking that can be recognised."""
    efforts: Mapping[str, str | None] = field(default_factory=dict)
    """What it is told for a name of an effort that it does not know: the nearest that it knows, or
    None, nothing."""

    def effort(self, name: str) -> str | None:
        """What it is told for the name of an effort."""
        return self.efforts.get(name, name)


def read_body(body: Mapping[str, Any]) -> Asked:
    """What a body asks for outside ``vllm_xargs``.

    Raises BadParameter for a parameter that is misspelt, misplaced, of a wrong type or out of
    range, and for two that contradict each other, naming both.
    """
    if refusal := misplaced_parameter(body):
        raise refusal
    for name in CONTAINERS:
        value = body.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise BadParameter(name, value, f"use an object, as in {_example(name)}")
    switch = _one([_read(body, row) for row in FOREIGN if row.sets == "switch"])
    effort = _one([_read(body, row) for row in FOREIGN if row.sets == "effort"])
    budget = _one([_read(body, row) for row in FOREIGN if row.sets == "budget"])
    asked = Asked(switch, effort, budget)
    tokens = _our_budget(body) or budget  # ours goes first
    _check(asked, tokens)
    return dataclasses.replace(asked, off=_off(asked, tokens))


def _read(body: Mapping[str, Any], row: Parameter) -> Wish | None:
    place, _, leaf = row.path.rpartition(".")
    value = ((body.get(place) or {}) if place else body).get(leaf)
    if value is None:
        return None
    try:
        read = row.read(value)
    except ValueError as error:
        raise BadParameter(row.path, value, str(error)) from error
    return None if read is None and row.sets != "budget" else Wish(read, row.path, value)


def _one(wishes: list[Wish | None]) -> Wish | None:
    """The one that all of them are."""
    made = [wish for wish in wishes if wish is not None]
    for other in made[1:]:
        if other.value != made[0].value:
            raise _contradiction(made[0], other)
    return made[0] if made else None


def _our_budget(body: Mapping[str, Any]) -> Wish | None:
    """As it stands: it is read when it is used."""
    value = (body.get(CONTAINER) or {}).get("exit_budget_tokens")
    return Wish(value, f"{CONTAINER}.exit_budget_tokens") if isinstance(value, int) else None


def _check(asked: Asked, budget: Wish | None) -> None:
    switch, effort = asked.switch, asked.effort
    bounded = budget is not None and budget.value is not None
    if switch and effort and switch.value == (effort.value == "none"):
        raise _contradiction(switch, effort)
    if switch and budget and bounded and switch.value == (budget.value == 0):
        raise _contradiction(switch, budget)
    if effort and effort.value == "none" and budget and budget.value != 0:
        raise _contradiction(effort, budget)


def _contradiction(one: Wish, other: Wish) -> BadParameter:
    return one.refusal(f"it contradicts {other}; leave one of them out")


def _off(asked: Asked, budget: Wish | None) -> Wish | None:
    if asked.switch and not asked.switch.value:
        return asked.switch
    if asked.effort and asked.effort.value == "none":
        return asked.effort
    return budget if budget and budget.value == 0 else None


def carry(
    body: dict[str, Any], asked: Asked, endpoint: str, template: Template
) -> tuple[dict[str, Any] | None, Asked]:
    """The body that tells vLLM what was asked, None if this one does; and what is asked then.

    `endpoint` is the path from ``/v1`` on. Raises BadParameter when thinking is to be switched
    off and the template cannot; a budget of 0 closes it at once instead.
    """
    told = dict(body)
    asked = dataclasses.replace(asked, seen_to=asked.off is not None and not template.thinks)
    if endpoint != COMPLETIONS:  # it has no template, so thinking is closed at once
        asked = _carry_switch(told, asked, template)
        _carry_effort(told, asked, endpoint, template)
    if endpoint == MESSAGES and isinstance(told.get("thinking"), Mapping):
        told["thinking"] = _for_messages(told["thinking"])
    return (None if told == body else told), asked


def _carry_switch(told: dict[str, Any], asked: Asked, template: Template) -> Asked:
    by_budget = asked.off is not None and type(asked.off.value) is int  # which closes by itself
    if asked.off and not by_budget and template.thinks and not template.switches:
        remedy = "this model's chat template cannot switch thinking off; a budget of 0, such as "
        remedy += "thinking_token_budget=0, closes it at once"
        raise asked.off.refusal(remedy)
    if template.switches and (asked.off or asked.switch):
        on = asked.off is None
        given = told.get(_KWARGS) or {}
        said = {name: value for name, value in given.items() if value is not None}
        told[_KWARGS] = dict.fromkeys(template.switches, on) | said
    seen_to = asked.seen_to or bool(asked.off and template.switches)
    return dataclasses.replace(asked, seen_to=seen_to)


def _carry_effort(told: dict[str, Any], asked: Asked, endpoint: str, template: Template) -> None:
    """The name to where this endpoint's schema has it; none that the template does not know."""
    if asked.effort is None or endpoint not in _EFFORT_PLACES:
        return
    name = template.effort(asked.effort.value)
    if endpoint == MESSAGES and name not in _ANTHROPIC_EFFORTS:
        name = None
    if name != asked.effort.value:
        _drop_efforts(told)
    place, _, leaf = _EFFORT_PLACES[endpoint].rpartition(".")
    if name is not None and place:
        told[place] = {leaf: name} | dict(told.get(place) or {})
    elif name is not None:
        told.setdefault(leaf, name)


def _drop_efforts(told: dict[str, Any]) -> None:
    for row in FOREIGN:
        place, _, leaf = row.path.rpartition(".")
        if row.sets == "effort" and place and isinstance(told.get(place), Mapping):
            told[place] = {name: value for name, value in told[place].items() if name != leaf}
        elif row.sets == "effort" and not place:
            told.pop(leaf, None)


def _for_messages(thinking: Mapping[str, Any]) -> dict[str, Any]:
    """In the words of its schema. Bounds are our policy's: vLLM's own budget cuts within lines,
    and starts at 1 024 there."""
    if thinking.get("type") == "disabled":
        return {"type": "disabled"}
    shown = thinking.get("display")
    return {"type": "adaptive"} | ({} if shown is None else {"display": shown})


def _example(container: str) -> str:
    row = next((row.path for row in FOREIGN if row.path.startswith(f"{container}.")), None)
    leaf = row.rpartition(".")[2] if row else "exit_policy"
    return f"{{{container!r}: {{{leaf!r}: ...}}}}"
