"""Comparison of two answers by an ordered list of rules."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from stepgrpo_core.sameness.choices import letter_of, option_of
from stepgrpo_core.sameness.clocks import same_clock
from stepgrpo_core.sameness.containers import (
    Sameness,
    read_container,
    same_items,
    same_regions,
)
from stepgrpo_core.sameness.evaluated import is_unevaluated
from stepgrpo_core.sameness.notation import normalize, unwrapped
from stepgrpo_core.sameness.numbers import read_number, same_number
from stepgrpo_core.sameness.relations import (
    ARROWS,
    are_different,
    is_statement,
    is_symbol,
    name_and_parts,
    region_of,
)
from stepgrpo_core.sameness.scan import split_top
from stepgrpo_core.sameness.units import changes_value, read_unit

__all__ = ["MAX_CHARACTERS", "Formulas", "Sameness", "compare", "same_value", "within_bounds"]

Formulas = Callable[[str, str], bool]
"""Function that compares a gold answer and an answer as formulas, both in normalized LaTeX."""
MAX_CHARACTERS = 2_000
MAX_DEPTH = 40
_LEVELS = 12  # nested containers and chains
_APPROXIMATELY = frozenset({"\\approx"})
_WORDS = re.compile(r"[A-Za-z][A-Za-z'\-., ]*")
_WORDLIKE = re.compile(r"[A-Za-z]{4,}|\b[A-Z][a-z]{2,}|^(?i:yes|no|all|odd)$")
_SYNONYMS = {
    **dict.fromkeys(("no solution", "no solutions", "none", "empty set"), "\\emptyset"),
    **dict.fromkeys(("all real numbers", "all reals"), "\\mathbb{R}"),
}
_TAIL = re.compile(r"(?:\\text\{[^{}]*\}(?:\^\{?-?[0-9]\}?)?(?:/|\\cdot)?)+$|\^\\circ$|(?<=\}) ?%$")
_GROUPED = re.compile(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_APART = re.compile(r"(?<![_^0-9])[0-9]+ [0-9]")


def within_bounds(text: str) -> bool:
    """Return whether an answer is short enough, and not nested too deeply, to be compared."""
    depth = deepest = 0
    for symbol in text:
        depth += (symbol in "{([") - (symbol in "})]")
        deepest = max(deepest, depth)
    return len(text) <= MAX_CHARACTERS and deepest <= MAX_DEPTH


def compare(gold: str, answer: str, formulas: Formulas | None = None) -> Sameness | None:
    """Compare an answer with the gold answer.

    Returns None if only `formulas` could decide, or if an answer is too long. "unevaluated" means
    that the value is right but contains arithmetic. Exceptions of `formulas` are not caught.
    """
    if gold.split() == answer.split():
        return "same"
    if not within_bounds(gold) or not within_bounds(answer):
        return None
    return _Comparison(formulas).whole(normalize(gold), normalize(answer))


def same_value(left: str, right: str) -> bool:
    r"""Return whether two answers are the same by `compare` without formulas, in either order.

    "1/2", "0.5" and ``\\frac{1}{2}`` are equal; formulas are compared by their notation only.
    """
    return "same" in {compare(left, right), compare(right, left)}


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The rules in their order; each returns None for answers of another kind."""

    formulas: Formulas | None
    level: int = 0

    def whole(self, gold: str, answer: str) -> Sameness | None:
        """Compare two answers that may be multiple-choice letters."""
        if gold == answer:
            return "same"
        letter, option = letter_of(gold), option_of(answer)
        if letter:
            return _verdict(option is not None and option[0] == letter)
        labeled = option_of(gold)
        if labeled and labeled[1] and option:
            return _verdict(option[0] == labeled[0])
        return self.same(gold, answer)

    def same(self, gold: str, answer: str) -> Sameness | None:
        """Compare two answers or parts of answers."""
        if gold == answer:
            return "same"
        if self.level > _LEVELS:
            return None
        inner = _Comparison(self.formulas, self.level + 1)
        for rule in (_words, _clocks, _numbers):
            if found := rule(gold, answer):
                return found
        for each in (inner.arrows, inner.regions, inner.approximate, inner.lists, inner.equations):
            decided, verdict = each(gold, answer)
            if decided:
                return verdict
        return self.decide(gold, answer)

    def arrows(self, gold: str, answer: str) -> tuple[bool, Sameness | None]:
        """Compare with the end of a derivation; a different earlier value is a second answer."""
        *steps, end = split_top(answer, ARROWS)[0]
        if not steps:
            return False, None
        for step in steps:
            name, parts = name_and_parts(step)
            if name is None and len(parts) > 1:
                continue  # an equation that the next step solves
            verdict = self.same(end, parts[-1])
            if verdict not in {"same", "unevaluated"}:
                return True, verdict
        return True, self.same(gold, end)

    def regions(self, gold: str, answer: str) -> tuple[bool, Sameness | None]:
        """Compare intervals, unions of them and inequalities."""
        one, other = region_of(gold), region_of(answer)
        if one is None or other is None:
            return False, None
        return True, same_regions(one, other, self.same)

    def approximate(self, gold: str, answer: str) -> tuple[bool, Sameness | None]:
        """Accept either side of an approximation; compare the exact sides of two of them."""
        golds, answers = _sides(gold), _sides(answer)
        if golds == [gold] and answers == [answer]:
            return False, None
        if len(golds) == len(answers) == 2:
            return True, self.same(golds[0], answers[0])
        verdicts = [self.same(one, other) for one in golds for other in answers]
        return True, "same" if "same" in verdicts else verdicts[-1]

    def lists(self, gold: str, answer: str) -> tuple[bool, Sameness | None]:
        """Compare containers; a single value equals the set that contains only it."""
        one, other = read_container(gold), read_container(answer)
        if one and other:
            return True, same_items(one, other, self.same)
        single = one or other
        if single is None:
            return False, None
        if single.kind == "set" and len(single.items) == 1:
            pair = (single.items[0], answer) if one else (gold, single.items[0])
            return True, self.same(*pair)
        if single.kind == "matrix" or is_statement(gold) or is_statement(answer):
            return False, None
        value = answer if one else gold
        return single.kind != "tuple" or read_number(value) is not None, "different"

    def equations(self, gold: str, answer: str) -> tuple[bool, Sameness | None]:
        """Compare the sides after the equality signs."""
        name, parts = name_and_parts(gold)
        other, others = name_and_parts(answer)
        if name is None and other is None and len(parts) == len(others) == 1:
            return False, None
        if name is None and len(parts) > 1:
            if len(others) == 1 and other is None:
                return True, "different"
            return True, self.decide(gold, answer)
        if other is None and len(others) > 1 and name is not None and not read_number(parts[-1]):
            return True, self.decide(gold, answer)
        if name and other and name != other and are_different(name, other):
            known = read_number(parts[-1]) and read_number(others[-1])
            return True, "different" if known else self.decide(gold, answer)
        return True, self._chain(parts[-1], others)

    def _chain(self, gold: str, parts: list[str]) -> Sameness | None:
        for part in parts[:-1]:
            verdict = self.same(parts[-1], part)
            if verdict not in {"same", "unevaluated"}:
                return verdict
        return self.same(gold, parts[-1])

    def decide(self, gold: str, answer: str) -> Sameness | None:
        """Ask the computer algebra system about two formulas."""
        if _APART.search(gold) or _APART.search(answer) or not answer or not gold:
            return "different"
        left, right = _formula(gold), _formula(answer)
        if left is None or right is None or _units_differ(gold, answer):
            return "different"
        if _letters(left) == _letters(right) or _letters(gold) == _letters(answer):
            return "same"
        if self.formulas is None:
            return None
        if not self.formulas(left, right):
            return "different"
        return "unevaluated" if is_unevaluated(left, right) else "same"


def _verdict(same: bool) -> Sameness:
    return "same" if same else "different"


def _words(gold: str, answer: str) -> Sameness | None:
    """Compare words without case; a word and a number differ."""
    one, other = _as_words(gold), _as_words(answer)
    if one is not None and other is not None:
        return _verdict(one == other)
    if one is None and other is None:
        return None
    if one == "\\mathbb{R}" and region_of(answer):
        return None
    return "different" if one is not None or read_number(gold) else None


def _as_words(text: str) -> str | None:
    """Return normalized words or the symbol that they stand for; None for other text."""
    if text in _SYNONYMS.values():
        return text
    text = unwrapped(text)
    if not _WORDS.fullmatch(text) or not _WORDLIKE.search(text):
        return None
    text = text.casefold().strip(" .").removeprefix("the ")
    return _SYNONYMS.get(text, text)


def _clocks(gold: str, answer: str) -> Sameness | None:
    found = same_clock(gold, answer)
    return None if found is None else _verdict(found)


def _numbers(gold: str, answer: str) -> Sameness | None:
    one, other = read_number(gold), read_number(answer)
    if one is None or other is None:
        return None
    if not same_number(one, other):
        return "different"
    return "unevaluated" if other.divided and not one.divided else "same"


def _formula(text: str) -> str | None:
    """Return a formula without unit and separators; the value of a numeral with a base."""
    number = read_number(text)
    if number and number.base:
        return str(number.value)
    text = _GROUPED.sub(lambda found: found[0].replace(",", ""), text)
    return _TAIL.sub("", text).replace("\\$", "") or None


def _letters(text: str) -> str:
    """Return a text without spaces and text commands."""
    return "".join(unwrapped(text).split())


def _sides(text: str) -> list[str]:
    """Return both sides of an approximation without a name, or the text alone."""
    sides = split_top(text, _APPROXIMATELY)[0]
    if len(sides) != 2:
        return [text]
    return sides[1:] if is_symbol(sides[0]) or not sides[0] else sides


def _units_differ(gold: str, answer: str) -> bool:
    tails = [tail[0] if (tail := _TAIL.search(text)) else "" for text in (gold, answer)]
    if len(set(map(changes_value, tails))) > 1:
        return True
    one, other = (read_unit(tail)[1] for tail in tails)
    return one is not None and other is not None and one != other
