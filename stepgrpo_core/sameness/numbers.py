r"""Numerals: digits, fractions, mixed numbers, powers of ten, bases, percentages.

A `Number` is exact. Two decimals are equal only if all their digits are. A decimal equals a
fraction without a finite decimal form if it shows at least `PLACES` of its places, rounded or
truncated. A percentage equals its number with and without the sign (``25%``, 25 and 0.25). A
numeral with a base equals the same digits without one, and its value.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from stepgrpo_core.sameness.units import Unit, read_unit

__all__ = ["PLACES", "Number", "read_number", "same_number", "shows"]

PLACES = 6
"""Decimal places that a decimal must show of a number with infinitely many."""
_DIGITS = 400  # maximum number of digits, and maximum value of an exponent

_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_PLAIN}(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"([+-]?{_DECIMAL})"
_POWER = r"10\^(?:\{([+-]?[0-9]{1,4})\}|([+-]?[0-9]{1,4}))"
_FORMS = {
    "repeating": re.compile(rf"({_DECIMAL})\\overline\{{([0-9]+)\}}(.*)"),
    "mixed": re.compile(r"([0-9]+) ?\\frac\{([0-9]+)\}\{([0-9]+)\}(.*)"),
    "mixed text": re.compile(r"([0-9]+) ([0-9]+)/([0-9]+)(.*)"),
    "fraction": re.compile(rf"\\frac\{{{_SIGNED}\}}\{{{_SIGNED}\}}(.*)"),
    "quotient": re.compile(rf"\(?({_DECIMAL})\)?/\(?({_DECIMAL})\)?(.*)"),
    "scientific": re.compile(rf"({_DECIMAL})(?:\\times|\\cdot|\*|x) ?{_POWER}(.*)"),
    "exponent": re.compile(rf"({_DECIMAL})[eE]([+-]?[0-9]{{1,4}})(?![0-9a-zA-Z])(.*)"),
    "power of ten": re.compile(rf"{_POWER}(.*)"),
    "base": re.compile(r"\(?([0-9A-Z]+)\)?_\{?(?:\\text\{)?([0-9]{1,2}|[a-z]+)\}{0,2}$"),
    "decimal": re.compile(rf"({_DECIMAL})(.*)"),
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_SCALE = re.compile(rf" *(?:\\text\{{ *)?({'|'.join(_SCALES)})s?\b(?: *\}})?")
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve"
_BASES = {name: place for place, name in enumerate(_BASE_NAMES.split(), 2)} | {"sixteen": 16}
_SIGN = re.compile(r"([+-]?)(?:(\\\$|[€£¥₹]|Rs\.?|US\\\$|USD|EUR|GBP) ?([+-]?))?")


@dataclass(frozen=True, slots=True)
class Number:
    """A numeral with its sign, percent sign, base and unit."""

    value: Fraction
    """Value as written: 3 for ``3%``."""
    places: int | None = None
    """Number of decimal places; None for integers and fractions, which are exact."""
    percent: bool = False
    numeral: str | None = None
    """Digits as written, if they have a base, as in ``11_2``, or could have one."""
    base: int | None = None
    unit: Unit | None = None
    divided: bool = False
    """True if a division with an integer result was not carried out, as in ``84/2``."""


def read_number(text: str) -> Number | None:
    """Parse a normalized text: one numeral with an optional sign, currency and unit."""
    sign = _SIGN.match(text)
    assert sign is not None
    body = text[sign.end() :]
    if body.startswith("(") and body.endswith(")") and body.count("(") == 1:
        body = body[1:-1]
        if body[:1] == "-":  # (-5)
            return None if sign[0] else read_number(body)
    for form, pattern in _FORMS.items():
        found = pattern.match(body)
        if found and max(map(len, re.findall("[0-9]+", body))) <= _DIGITS:
            number = _read(form, [group for group in found.groups() if group is not None])
            return number and _signed(number, sign)
    return None


def _signed(number: Number, sign: re.Match[str]) -> Number:
    unit = number.unit
    if sign[2]:
        currency = sign[2].removeprefix("US\\").removeprefix("\\")
        unit = read_unit(f"\\text{{{currency}}}")[1]
    negative = (sign[1] + (sign[3] or "")).count("-") % 2 == 1
    value = -number.value if negative else number.value
    numeral = number.numeral and f"-{number.numeral}" if negative else number.numeral
    return replace(number, value=value, numeral=numeral, unit=unit)


def _read(form: str, groups: list[str]) -> Number | None:
    if form == "base":
        return _of_base(groups[0], groups[1])
    *parts, rest = groups
    value = _value(form, parts)
    scale = _SCALE.match(rest)
    around = _around(rest[scale.end() :] if scale else rest)
    if value is None or around is None:
        return None
    value *= _SCALES[scale[1]] if scale else 1
    decimal = form in {"decimal", "scientific", "exponent"}
    numeral = parts[0] if form == "decimal" and parts[0].isdigit() else None
    places = _places(form, parts) if decimal else None
    even = form in {"fraction", "quotient"} and value.denominator == 1 and parts[1] != "1"
    return Number(value, places, around[0], numeral, None, around[1], even)


def _value(form: str, parts: list[str]) -> Fraction | None:
    if form == "repeating":
        return _repeating(*parts)
    if form == "power of ten":
        return _ten(parts[0])
    numbers = [Fraction(part.replace(",", "").replace(" ", "").rstrip(".")) for part in parts]
    if form == "decimal":
        return numbers[0]
    if form in {"scientific", "exponent"}:
        power = _ten(parts[1])
        return None if power is None else numbers[0] * power
    if not numbers[-1]:
        return None
    ratio = numbers[-2] / numbers[-1]
    return ratio if form in {"fraction", "quotient"} else numbers[0] + ratio


def _ten(exponent: str) -> Fraction | None:
    power = int(exponent)
    if abs(power) > _DIGITS:
        return None
    size: int = 10 ** abs(power)
    return Fraction(size) if power >= 0 else Fraction(1, size)


def _repeating(start: str, period: str) -> Fraction:
    """Return 0.1666... for "0.1" and "6"."""
    _, _, after = start.partition(".")
    shift: int = 10 ** len(after)
    tail = Fraction(int(period), 10 ** len(period) - 1) / shift
    return Fraction(start.replace(",", "").rstrip(".") or "0") + tail


def _places(form: str, parts: list[str]) -> int | None:
    """Return the number of decimal places; None for integers."""
    _, _, after = parts[0].partition(".")
    shift = int(parts[1]) if form != "decimal" else 0
    return max(len(after) - shift, 0) or None


def _around(rest: str) -> tuple[bool, Unit | None] | None:
    """Return whether a percent sign follows a numeral, and its unit; None for other text."""
    if re.match("[a-zA-Z](?![a-zA-Z])", rest):
        return None  # 3m is a product, 3 m is a length
    rest = rest.strip()
    percent = rest.startswith("%")
    rest = rest.removeprefix("%").strip()
    if not rest:
        return percent, None
    known, unit = read_unit(rest)
    return (percent, unit) if known else None


def _of_base(digits: str, name: str) -> Number | None:
    base = int(name) if name.isdigit() else _BASES.get(name, 0)
    try:
        return Number(Fraction(int(digits, base)), numeral=digits, base=base) if base else None
    except ValueError:  # 2_2, or an invalid base
        return None


def same_number(one: Number, other: Number) -> bool:
    """Return whether two numerals with their units have the same value."""
    if one.base and other.base:
        return one.value == other.value
    if (one.base or other.base) and one.numeral and one.numeral == other.numeral:
        return True
    if one.unit and other.unit:
        if one.unit.dimension != other.unit.dimension:
            return False
        ratio = one.unit.size / other.unit.size
        if ratio != 1:
            return one.value * ratio == other.value
    if one.percent == other.percent:
        return _equal(one.value, one.places, other.value, other.places)
    return any(
        _equal(left, _shifted(one.places, left, one), right, _shifted(other.places, right, other))
        for left in _readings(one)
        for right in _readings(other)
    )


def _readings(number: Number) -> tuple[Fraction, ...]:
    return (number.value, number.value / 100) if number.percent else (number.value,)


def _shifted(places: int | None, value: Fraction, number: Number) -> int | None:
    """Return the places of a percentage that is read as a fraction of 1."""
    return places + 2 if places is not None and value != number.value else places


def _equal(one: Fraction, places: int | None, other: Fraction, others: int | None) -> bool:
    if one == other:
        return True
    if (places is None) == (others is None):
        return False
    return shows(one, places, other) if places is not None else shows(other, others or 0, one)


def shows(decimal: Fraction, places: int, value: Fraction) -> bool:
    """Return whether a decimal is `value` rounded or truncated to `places`; see `PLACES`."""
    scale = 10**places
    if places < PLACES or abs(decimal) * scale < 1000:
        return False
    shown, exact = decimal * scale, value * scale
    return shown in {round(exact), int(exact)}
