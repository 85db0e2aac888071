r"""Lists, tuples, sets, intervals and matrices, compared element by element.

The order matters in tuples and matrices, not in sets and bare lists; named elements (``x=1, y=2``)
are compared by name. A set equals neither a tuple nor an interval. A bare list equals the set or
the tuple with its elements.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from stepgrpo_core.sameness.relations import Interval, name_and_parts
from stepgrpo_core.sameness.scan import encloses, split_list, split_top

__all__ = [
    "Container",
    "Sameness",
    "all_same",
    "items_of",
    "read_container",
    "same_items",
    "same_regions",
]

Sameness = Literal["same", "different", "unevaluated"]
Rule = Callable[[str, str], Sameness | None]
_Item = TypeVar("_Item")
_ALIKE = frozenset({"same", "unevaluated"})
_SIGN = re.compile(r"\\pm ?")
_PLUS = re.compile(r"(^|[(=,]) ?\+")
_SIGNS = 3  # plus-minus signs in a tuple; each doubles the number of tuples
_MOST = 64  # elements to match in any order
_MATRIX = re.compile(r"\\begin\{matrix\}(.*)\\end\{matrix\}(\^\{?T\}?)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Container:
    """Elements of a list, tuple, set or matrix."""

    kind: Literal["list", "tuple", "set", "matrix"]
    items: tuple[str, ...]
    columns: int = 0
    """Number of columns of a matrix; `items` are in row-major order."""


def read_container(text: str) -> Container | None:
    """Parse a normalized text as a container; None if it is not one."""
    if text.startswith("\\{") and encloses(text):
        return Container("set", tuple(items_of(text[2:-2])))
    if text[:1] == "(" and "\\pm" in text and len(items := items_of(text)) > 1:
        return Container("list", tuple(items))
    if text[:1] in {"(", "["} and encloses(text):
        items = split_list(text[1:-1])
        return Container("tuple", tuple(items)) if len(items) > 1 else None
    if matrix := _MATRIX.fullmatch(text):
        return _matrix(matrix[1], transposed=matrix[2] is not None)
    items = items_of(text)
    return Container("list", tuple(items)) if len(items) > 1 else None


def items_of(text: str) -> list[str]:
    r"""Split a list; expand an element with ``\pm`` to two, a tuple to all its signs."""
    found = []
    for item in split_list(text):
        several = item.count("\\pm") > 1 and item[:1] != "("
        if "\\pm" not in item or "\\mp" in item or several or item.count("\\pm") > _SIGNS:
            found.append(item)
        else:
            found += _signed(item)
    return found


def _signed(item: str) -> list[str]:
    if "\\pm" not in item:
        return [item]
    variants = [_PLUS.sub(r"\1", _SIGN.sub(sign, item, count=1)) for sign in "+-"]
    return [each for variant in variants for each in _signed(variant)]


def _matrix(body: str, *, transposed: bool) -> Container | None:
    rows = [split_top(row, frozenset("&"))[0] for row in split_top(body, frozenset({"\\\\"}))[0]]
    if len({len(row) for row in rows}) > 1:
        return None
    if transposed:
        rows = [list(column) for column in zip(*rows, strict=True)]
    return Container("matrix", tuple(cell for row in rows for cell in row), len(rows[0]))


def all_same(found: Sequence[Sameness | None]) -> Sameness | None:
    """Combine the verdicts of elements."""
    worst: tuple[Sameness | None, ...] = ("different", None, "unevaluated")
    return next((each for each in worst if each in found), "same")


def same_items(gold: Container, answer: Container, same: Rule) -> Sameness | None:
    """Compare two containers."""
    kinds = {gold.kind, answer.kind}
    if len(gold.items) != len(answer.items) or kinds == {"set", "tuple"}:
        return "different"
    if "matrix" in kinds:
        return _same_matrix(gold, answer, same)
    named = _by_name(gold.items), _by_name(answer.items)
    if named[0] and named[1] and named[0].keys() == named[1].keys():
        return all_same([same(named[0][name], named[1][name]) for name in named[0]])
    if "tuple" in kinds or named[0] or named[1]:
        return _in_order(gold.items, answer.items, same)
    return _in_any_order(gold.items, answer.items, same)


def _same_matrix(gold: Container, answer: Container, same: Rule) -> Sameness | None:
    vectors = [
        each.kind != "matrix" or each.columns in {1, len(each.items)} for each in (gold, answer)
    ]
    if gold.kind == answer.kind == "matrix" and gold.columns != answer.columns:
        return "different"
    flat = gold.kind == answer.kind or (all(vectors) and "set" not in {gold.kind, answer.kind})
    return _in_order(gold.items, answer.items, same) if flat else "different"


def _by_name(items: Sequence[str]) -> dict[str, str] | None:
    """Return the elements by name; None unless all have different names."""
    found: dict[str, str] = {}
    for item in items:
        name, parts = name_and_parts(item)
        if name is None or name in found or len(parts) > 1:
            return None
        found[name] = parts[0]
    return found


def _in_order(gold: Sequence[str], answer: Sequence[str], same: Rule) -> Sameness | None:
    found: list[Sameness | None] = []
    for one, other in zip(gold, answer, strict=True):
        found.append(same(one, other))
        if found[-1] == "different":
            break
    return all_same(found)


def _in_any_order(gold: Sequence[str], answer: Sequence[str], same: Rule) -> Sameness | None:
    rest = list(answer)
    wanted = []
    for item in gold:
        if item in rest:
            rest.remove(item)
        else:
            wanted.append(item)
    return "different" if len(wanted) > _MOST else _matched(wanted, rest, same)


def same_regions(
    gold: Sequence[Interval], answer: Sequence[Interval], same: Rule
) -> Sameness | None:
    """Compare two unions of intervals, in any order of the intervals."""
    if len(gold) != len(answer) or len(gold) > _MOST:
        return "different"
    return _matched(gold, answer, lambda one, other: _same_interval(one, other, same))


def _matched(
    gold: Sequence[_Item], answer: Sequence[_Item], same: Callable[[_Item, _Item], Sameness | None]
) -> Sameness | None:
    """Match every element of the gold answer to a different one of the answer."""
    rest, found = list(answer), []
    for item in gold:
        verdicts = [same(item, other) for other in rest]
        place = next((p for p, verdict in enumerate(verdicts) if verdict in _ALIKE), None)
        if place is None:
            return None if None in verdicts else "different"
        found.append(verdicts[place])
        del rest[place]
    return all_same(found)


def _same_interval(one: Interval, other: Interval, same: Rule) -> Sameness | None:
    if (one.with_low, one.with_high) != (other.with_low, other.with_high):
        return "different"
    return _in_order((one.low, one.high), (other.low, other.high), same)
