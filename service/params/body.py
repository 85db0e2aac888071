"""Read the thinking parameters of a request's body, and rewrite the body for vLLM."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.params.apis import BATCH, CHAT, COMPLETIONS, INVOCATIONS, MESSAGES, RESPONSES
from service.params.effort import EFFORTS
from service.params.suggestions import CONTAINERS, misplaced_parameter
from service.params.table import CONTAINER, EVENTS, FOREIGN, Parameter, read_flag
from service.records.requested import BadParameter, Requested, ThinkingRequest
from stepgrpo_core.families.templates import Switch

__all__ = ["Template", "read_body", "to_vllm_body", "wants_events"]

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
    """Capabilities of the served model's chat template."""

    switches: tuple[str, ...] = ()
    """Variables that switch thinking off when they are false."""
    thinks: bool = True
    """The model may write thinking."""
    others: tuple[Switch, ...] = ()
    """Variables that switch it off by other values; used only without `switches`."""
    efforts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Efforts that each variable for efforts accepts."""
    rendered: bool = True
    """The template renders the prompts; otherwise vLLM does, and reads efforts from the body."""
    known: bool = True
    """The model's family is known."""
    word: str | None = None
    """Text in a system message that switches thinking off, where no variable does."""

    @property
    def can_switch(self) -> bool:
        """True if some variable switches thinking off."""
        return bool(self.switches or self.others)

    def switched(self, *, on: bool) -> dict[str, Any]:
        """Return the variables that switch thinking on or off."""
        if self.switches:
            return dict.fromkeys(self.switches, on)
        values = {each.name: each.on if on else each.off for each in self.others}
        return {name: value for name, value in values.items() if value is not None}


def read_body(body: Mapping[str, Any]) -> ThinkingRequest:
    """Return what a body requests outside ``vllm_xargs``.

    Raises BadParameter for a parameter that is misspelled, misplaced, of a wrong type or out of
    range, and for two that contradict each other.
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
    tokens = _our_budget(body) or budget  # ours takes precedence
    _check(asked, tokens)
    return dataclasses.replace(asked, off=_off(asked, tokens))


def wants_events(body: Mapping[str, Any], *, streams: bool) -> bool:
    """Return whether a body asks for events in its stream.

    Raises BadParameter for anything but a switch, and without a stream.
    """
    value = (body.get(CONTAINER) or {}).get(EVENTS)
    if value is None:
        return False
    path = f"{CONTAINER}.{EVENTS}"
    try:
        wanted = read_flag(value)
    except ValueError as error:
        raise BadParameter(path, value, str(error)) from error
    if wanted and not streams:
        raise BadParameter(path, value, "only a stream carries events: set 'stream' to true")
    return wanted


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


def _one(requests: list[Requested | None]) -> Requested | None:
    """Return the first request; raises BadParameter if another one differs from it."""
    given = [each for each in requests if each is not None]
    for other in given[1:]:
        if other.value != given[0].value:
            raise _contradiction(given[0], other)
    return given[0] if given else None


def _our_budget(body: Mapping[str, Any]) -> Requested | None:
    """Return the budget in ``vllm_xargs``, which is validated where it is used."""
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
    """Return the body for vLLM, None if it needs no change, and the request that remains.

    `endpoint` is the path from ``/v1`` on. Raises BadParameter if thinking is to be switched off
    and the template has no switch; a budget of 0 closes the thinking at once instead.
    """
    rewritten = dict(body)
    asked = dataclasses.replace(asked, already_off=asked.off is not None and not template.thinks)
    if endpoint != COMPLETIONS:  # completions render no template, so thinking is closed at once
        asked = _carry_switch(rewritten, asked, template)
        _carry_effort(rewritten, asked, endpoint, template)
    if endpoint == MESSAGES and isinstance(rewritten.get("thinking"), Mapping):
        rewritten["thinking"] = _for_messages(rewritten["thinking"])
    return (None if rewritten == body else rewritten), asked


def _carry_switch(
    rewritten: dict[str, Any], asked: ThinkingRequest, template: Template
) -> ThinkingRequest:
    by_budget = asked.off is not None and type(asked.off.value) is int  # it needs no switch
    if asked.off and not by_budget and template.thinks and not template.can_switch:
        raise asked.off.refusal(_no_switch(template))
    if template.can_switch and (asked.off or asked.switch):
        variables = template.switched(on=asked.off is None)
        if variables:
            given = rewritten.get(_KWARGS) or {}
            said = {name: value for name, value in given.items() if value is not None}
            rewritten[_KWARGS] = variables | said
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
    rewritten: dict[str, Any], asked: ThinkingRequest, endpoint: str, template: Template
) -> None:
    """Put the effort where the endpoint's schema has it, for templates that read efforts.

    An effort that the template would reject, or has another name for, goes into its variables.
    """
    if asked.effort is None or endpoint not in _EFFORT_PLACES:
        return
    named = _named_efforts(asked.effort.value, template)
    if named is None:
        _place_effort(rewritten, endpoint, asked.effort.value)
        return
    _drop_efforts(rewritten)
    if not template.rendered:
        _place_effort(rewritten, endpoint, named.get("reasoning_effort"))
        return
    switched = template.switched(on=asked.off is None)  # an effort may be the switch
    if variables := switched | named | dict(rewritten.get(_KWARGS) or {}):
        rewritten[_KWARGS] = variables


def _place_effort(rewritten: dict[str, Any], endpoint: str, effort: str | None) -> None:
    """Put an effort where the endpoint's schema has it, unless the schema would reject it."""
    place, _, leaf = _EFFORT_PLACES[endpoint].rpartition(".")
    if effort is None:
        return
    if endpoint == MESSAGES and effort not in _ANTHROPIC_EFFORTS:
        _drop_efforts(rewritten)
    elif place:
        rewritten[place] = {leaf: effort} | dict(rewritten.get(place) or {})
    else:
        rewritten.setdefault(leaf, effort)


def _drop_efforts(rewritten: dict[str, Any]) -> None:
    """Remove the effort from the body, where it would override the template's variables."""
    for row in FOREIGN:
        place, _, leaf = row.path.rpartition(".")
        if row.sets == "effort" and place and isinstance(rewritten.get(place), Mapping):
            rewritten[place] = {
                name: value for name, value in rewritten[place].items() if name != leaf
            }
        elif row.sets == "effort" and not place:
            rewritten.pop(leaf, None)


def _for_messages(thinking: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``thinking`` as the Messages schema has it, without a budget.

    Policy budget enforces it instead: vLLM's own cuts within lines, and must be 1024 or more there.
    """
    if thinking.get("type") == "disabled":
        return {"type": "disabled"}
    shown = thinking.get("display")
    return {"type": "adaptive"} | ({} if shown is None else {"display": shown})


def _named_efforts(effort: str, template: Template) -> dict[str, str] | None:
    """Return the template's variables for an effort; None if the effort is passed unchanged."""
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
