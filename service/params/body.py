"""A request's body: what it asks for, and what vLLM must be told so that it comes true."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.params.apis import BATCH, CHAT, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES
from service.params.effort import EFFORTS
from service.params.suggestions import CONTAINERS, misplaced_parameter
from service.params.table import CONTAINER, FOREIGN, Parameter
from service.records.requested import BadParameter, Requested, ThinkingRequest
from stepgrpo_core.families.templates import Switch

__all__ = ["Template", "read_body", "to_vllm_body"]

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
    """Its variables that switch thinking off by false."""
    thinks: bool = True
    """The model may write thinking."""
    others: tuple[Switch, ...] = ()
    """Variables that do so by other values; used where there is none of `switches`."""
    efforts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The efforts that each of its variables of efforts takes."""
    rendered: bool = True
    """It writes the prompts; or else vLLM does so, which takes efforts from their own places."""
    known: bool = True
    """How the model writes thinking is known."""
    word: str | None = None
    """What switches thinking off in a system message, where no variable does."""

    @property
    def can_switch(self) -> bool:
        """Whether it switches thinking off at all."""
        return bool(self.switches or self.others)

    def switched(self, *, on: bool) -> dict[str, Any]:
        """The variables that switch thinking on, or off."""
        if self.switches:
            return dict.fromkeys(self.switches, on)
        values = {each.name: each.on if on else each.off for each in self.others}
        return {name: value for name, value in values.items() if value is not None}


def read_body(body: Mapping[str, Any]) -> ThinkingRequest:
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
    asked = ThinkingRequest(switch, effort, budget)
    tokens = _our_budget(body) or budget  # ours goes first
    _check(asked, tokens)
    return dataclasses.replace(asked, off=_off(asked, tokens))


def _read(body: Mapping[str, Any], row: Parameter) -> Requested | None:
    place, _, leaf = row.path.rpartition(".")
    value = ((body.get(place) or {}) if place else body).get(leaf)
    if value is None:
        return None
    try:
        read = row.read(value)
    except ValueError as error:
        raise BadParameter(row.path, value, str(error)) from error
    return None if read is None and row.sets != "budget" else Requested(read, row.path, value)


def _one(wishes: list[Requested | None]) -> Requested | None:
    """The one that all of them are."""
    made = [wish for wish in wishes if wish is not None]
    for other in made[1:]:
        if other.value != made[0].value:
            raise _contradiction(made[0], other)
    return made[0] if made else None


def _our_budget(body: Mapping[str, Any]) -> Requested | None:
    """As it stands: it is read when it is used."""
    value = (body.get(CONTAINER) or {}).get("exit_budget_tokens")
    return Requested(value, f"{CONTAINER}.exit_budget_tokens") if isinstance(value, int) else None


def _check(asked: ThinkingRequest, budget: Requested | None) -> None:
    switch, effort = asked.switch, asked.effort
    bounded = budget is not None and budget.value is not None
    if switch and effort and switch.value == (effort.value == "none"):
        raise _contradiction(switch, effort)
    if switch and budget and bounded and switch.value == (budget.value == 0):
        raise _contradiction(switch, budget)
    if effort and effort.value == "none" and budget and budget.value != 0:
        raise _contradiction(effort, budget)


def _contradiction(one: Requested, other: Requested) -> BadParameter:
    return one.refusal(f"it contradicts {other}; leave one of them out")


def _off(asked: ThinkingRequest, budget: Requested | None) -> Requested | None:
    if asked.switch and not asked.switch.value:
        return asked.switch
    if asked.effort and asked.effort.value == "none":
        return asked.effort
    return budget if budget and budget.value == 0 else None


def to_vllm_body(
    body: dict[str, Any], asked: ThinkingRequest, endpoint: str, template: Template
) -> tuple[dict[str, Any] | None, ThinkingRequest]:
    """The body that tells vLLM what was asked, None if this one does; and what is asked then.

    `endpoint` is the path from ``/v1`` on. Raises BadParameter when thinking is to be switched
    off and the template cannot; a budget of 0 closes it at once instead.
    """
    told = dict(body)
    asked = dataclasses.replace(asked, already_off=asked.off is not None and not template.thinks)
    if endpoint != COMPLETIONS:  # it has no template, so thinking is closed at once
        asked = _carry_switch(told, asked, template)
        _carry_effort(told, asked, endpoint, template)
    if endpoint == MESSAGES and isinstance(told.get("thinking"), Mapping):
        told["thinking"] = _for_messages(told["thinking"])
    return (None if told == body else told), asked


def _carry_switch(
    told: dict[str, Any], asked: ThinkingRequest, template: Template
) -> ThinkingRequest:
    by_budget = asked.off is not None and type(asked.off.value) is int  # which closes by itself
    if asked.off and not by_budget and template.thinks and not template.can_switch:
        raise asked.off.refusal(_no_switch(template))
    if template.can_switch and (asked.off or asked.switch):
        variables = template.switched(on=asked.off is None)
        if variables:
            given = told.get(_KWARGS) or {}
            said = {name: value for name, value in given.items() if value is not None}
            told[_KWARGS] = variables | said
    already_off = asked.already_off or bool(asked.off and template.can_switch)
    return dataclasses.replace(asked, already_off=already_off)


def _no_switch(template: Template) -> str:
    if not template.known:
        return (
            "how this model writes thinking is not known, and its chat template has no switch: "
            "leave it out, or start the server with --exit-family or --reasoning-parser"
        )
    can = f"; {template.word!r} in a system message does" if template.word else ""
    return (
        f"this model's chat template cannot switch thinking off{can}; a budget of 0, such as "
        "thinking_token_budget=0, closes it at once"
    )


def _carry_effort(
    told: dict[str, Any], asked: ThinkingRequest, endpoint: str, template: Template
) -> None:
    """To where this endpoint's schema has it, for templates that know efforts. What a template
    would refuse, or knows by another name, goes to its own variables instead."""
    if asked.effort is None or endpoint not in _EFFORT_PLACES:
        return
    named = _named_efforts(asked.effort.value, template)
    if named is None:
        _place_effort(told, endpoint, asked.effort.value)
        return
    _drop_efforts(told)
    if not template.rendered:
        _place_effort(told, endpoint, named.get("reasoning_effort"))
        return
    switched = template.switched(on=asked.off is None)  # which may be by an effort
    if variables := switched | named | dict(told.get(_KWARGS) or {}):
        told[_KWARGS] = variables


def _place_effort(told: dict[str, Any], endpoint: str, effort: str | None) -> None:
    """An effort to where this endpoint's schema has it; none that the schema does not know."""
    place, _, leaf = _EFFORT_PLACES[endpoint].rpartition(".")
    if effort is None:
        return
    if endpoint == MESSAGES and effort not in _ANTHROPIC_EFFORTS:
        _drop_efforts(told)
    elif place:
        told[place] = {leaf: effort} | dict(told.get(place) or {})
    else:
        told.setdefault(leaf, effort)


def _drop_efforts(told: dict[str, Any]) -> None:
    """Take an effort out of wherever it stands: there it would go before the variables."""
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


def _named_efforts(effort: str, template: Template) -> dict[str, str] | None:
    """The template's own words for an effort; None where it takes ours as it is, or none."""
    taken = template.efforts.items()
    if all(name == "reasoning_effort" and effort in each for name, each in taken):
        switch = {each.name: each.off for each in template.others if not template.switches}
        off = switch.get("reasoning_effort", effort)
        return {} if effort == "none" and off != effort else None
    if effort == "none":
        return {}
    place = EFFORTS.index(effort)
    return {
        name: min(each, key=lambda other: abs(EFFORTS.index(other) - place - 0.1))
        for name, each in template.efforts.items()
        if each
    }


def _example(container: str) -> str:
    row = next((row.path for row in FOREIGN if row.path.startswith(f"{container}.")), None)
    leaf = row.rpartition(".")[2] if row else "exit_policy"
    return f"{{{container!r}: {{{leaf!r}: ...}}}}"
