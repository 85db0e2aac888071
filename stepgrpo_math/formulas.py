"""Equality of two formulas, by latex2sympy (math-verify's parser) and sympy.

Rational numbers are compared exactly, others to `DIGITS` digits. Formulas with variables are
compared at random points, which is faster than simplification and also decides where simplification
cannot. Equations are the same if the differences of their sides are proportional. The rest (sets,
inequalities, matrices, formulas without a value at a point) is left to math-verify's `verify`. Its
comparison of numbers is not used: it rounds to 6 decimals, so 1/2004! would equal 1/2006!.
"""

import random
from fractions import Fraction
from functools import lru_cache
from typing import Any

from stepgrpo_core.sameness import Sameness, compare, is_imaginary, read_number, shows

__all__ = ["UnparsableGold", "compare_answers", "same_formula", "warm_up"]

DIGITS = 40
POINTS = 6


class UnparsableGold(ValueError):
    """The gold answer cannot be parsed as a formula."""


def warm_up() -> None:
    """Compare two pairs, so that later comparisons do not include the loading of modules."""
    same_formula(r"\frac{x^2-1}{x-1}", "x+1")
    same_formula(r"\sqrt{8}<x", r"2\sqrt{2}<x")


def compare_answers(gold: str, answer: str) -> Sameness | None:
    """Compare two answers by `stepgrpo_core.sameness.compare` with formulas.

    Raises UnparsableGold if the gold answer must be a formula and is not, and any error of sympy.
    """
    return compare(gold, answer, same_formula)


def same_formula(gold: str, answer: str) -> bool:
    """Return whether two formulas, normalized by `sameness`, are the same; may raise anything."""
    is_complex = is_imaginary(gold) or is_imaginary(answer)
    one, other = _parsed(gold, is_complex), _parsed(answer, is_complex)
    if one is None:
        raise UnparsableGold(gold)
    if other is None:
        return False
    for decimal, value in ((gold, other), (answer, one)):
        if (found := _shown(decimal, value)) is not None:
            return found
    return _same(one, other)


@lru_cache(maxsize=256)
def _parsed(text: str, is_complex: bool) -> Any:
    """Return the sympy expression of a formula, with decimals as fractions; None if invalid."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex  # noqa: PLC0415

    config = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True)
    try:
        found = latex2sympy(
            normalize_latex(text, config), is_real=not is_complex, normalization_config=None
        )
    except (RecursionError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - it raises a plain Exception for invalid formulas
        return None
    return _plain(found, is_complex)


def _plain(value: Any, is_complex: bool) -> Any:
    """Replace decimals by fractions, unknown functions by symbols, and i by sympy's unit."""
    import sympy  # noqa: PLC0415
    from sympy.core.function import AppliedUndef  # noqa: PLC0415
    from sympy.core.relational import Relational  # noqa: PLC0415

    if not isinstance(value, sympy.Basic):
        return value
    if isinstance(value, Relational):  # keep its sides apart
        sides = [_plain(side, is_complex) for side in (value.lhs, value.rhs)]
        return value.func(*sides, evaluate=False)
    changes: dict[Any, Any] = {each: sympy.Rational(str(each)) for each in value.atoms(sympy.Float)}
    unknown = value.atoms(AppliedUndef, sympy.Derivative)
    changes |= {each: sympy.Symbol(f"value of {each}", real=True) for each in unknown}
    if is_complex:
        changes |= {each: sympy.I for each in value.free_symbols if each.name == "i"}
    return value.xreplace(changes) if changes else value


def _shown(text: str, value: Any) -> bool | None:
    """Return whether a decimal is the value of a formula; None if `text` is no decimal."""
    number = read_number(text)
    if number is None or number.places is None or not getattr(value, "is_number", False):
        return None
    exact = _rational(value)
    if exact is None:
        shown = value.evalf(DIGITS)
        if not shown.is_Float:
            return False
        exact = Fraction(str(shown))
    return exact == number.value or shows(number.value, number.places, exact)


def _rational(value: Any) -> Fraction | None:
    done = value.doit()
    return Fraction(int(done.p), int(done.q)) if done.is_Rational else None


def _same(one: Any, other: Any) -> bool:
    import sympy  # noqa: PLC0415

    if isinstance(one, sympy.Eq) and isinstance(other, sympy.Eq):
        found = _same_equation(one, other)
    elif isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        found = _equal(one, other)
    else:
        found = None
    return _verified(one, other) if found is None else found


def _verified(one: Any, other: Any) -> bool:
    from math_verify import verify  # noqa: PLC0415

    return bool(verify([one], [other], timeout_seconds=None, raise_on_error=True))


def _equal(one: Any, other: Any) -> bool | None:
    """Compare two expressions; None if they have no values to compare."""
    if not one.free_symbols and not other.free_symbols:
        rational = _rational(one), _rational(other)
        if None not in rational:
            return rational[0] == rational[1]
    ratios = _ratios(one, other)
    return None if ratios is None else all(_is_near(each, 1) for each in ratios)


def _same_equation(one: Any, other: Any) -> bool | None:
    """Compare equations: with variables up to a factor, without variables side by side."""
    if one.free_symbols or other.free_symbols:
        return _proportional(one.lhs - one.rhs, other.lhs - other.rhs)
    return _equal(one.lhs, other.lhs) and _equal(one.rhs, other.rhs)


def _proportional(one: Any, other: Any) -> bool | None:
    ratios = _ratios(one, other)
    return None if ratios is None else all(_is_near(each, ratios[0]) for each in ratios)


def _ratios(one: Any, other: Any) -> list[Any] | None:
    """Return the ratios of two expressions at points where both have a value; 0/0 is 1."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    rounds = POINTS if symbols else 1
    found = []
    for place in range(rounds):
        point = dict(zip(symbols, _point(len(symbols), place), strict=True))
        pair = [_value(each, point) for each in (one, other)]
        if None in pair:
            continue
        found.append(_quotient(*pair))
    return found if len(found) > rounds // 3 else None


def _point(size: int, place: int) -> list[Any]:
    """Return a point: positive fractions, then fractions of both signs, then natural numbers."""
    from sympy import Integer, Rational  # noqa: PLC0415

    draw = random.Random(f"{size} {place}")
    if place >= POINTS - 2:
        return [Integer(draw.randint(2, 9)) for _ in range(size)]
    signs = (1,) if place < POINTS // 2 else (1, -1)
    return [Rational(draw.choice(signs) * draw.randint(300, 2_700), 997) for _ in range(size)]


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Return the value at a point as a complex number of `DIGITS` digits; None without one."""
    value = expression.subs(point).doit().evalf(DIGITS, chop=False)
    real, imaginary = value.as_real_imag()
    return value if real.is_Number and imaginary.is_Number and value.is_finite else None


def _quotient(one: Any, other: Any) -> Any:
    from sympy import Float, Integer  # noqa: PLC0415

    tiny = Float(10) ** (8 - DIGITS)
    if abs(one) < tiny and abs(other) < tiny and (one == 0 or other == 0):
        return Integer(1)
    return (one / other).evalf(DIGITS) if other != 0 else Integer(0)


def _is_near(value: Any, other: Any) -> bool:
    from sympy import Float  # noqa: PLC0415

    return bool(other != 0 and abs(value / other - 1) < Float(10) ** (12 - DIGITS))
