r"""Answers made from a gold, with the same meaning or with a changed one.

Each rule takes a gold and returns an answer, or None if it does not apply. `SAME` has other
notations of a gold, `CHANGED` has similar answers with another meaning, and `STANDING` has the
gold's value as unevaluated arithmetic.
"""

import re
from collections.abc import Callable
from fractions import Fraction

__all__ = ["CHANGED", "SAME", "STANDING", "Rule"]

Rule = Callable[[str], str | None]
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_DECIMAL = re.compile(r"-?[0-9]*\.[0-9]{1,12}")
_EXPONENT = re.compile(r"(-?[0-9.]+)e([+-]?[0-9]+)")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]{1,6})\}\{([0-9]{1,6})\}")
_PAIR = re.compile(r"([(\[])\s*([^,()\[\]]+),\s*([^,()\[\]]+)([)\]])")
_LIST = re.compile(r"[^,()\[\]{}\\=]+(?:,\s*[^,()\[\]{}\\=]+)+")
_LETTER = re.compile(r"(?:\\text(?:bf)?\{)?\(?([A-E])\)?\}?")
_BASE = re.compile(r"([0-9]+)_\{?([0-9])\}?")
_WORDS = re.compile(r"\\text\{([A-Za-z ]+)\}")
_ASSIGNED = re.compile(r"([a-z]) ?= ?([^=]+)")
_COMPLEX = re.compile(r"(-?[0-9]+) ?([+-]) ?([0-9]*) ?i")
_COMMA = re.compile(r"[0-9]{1,3}(?:(?:,|,\\!)[0-9]{3})+")
_DIGIT = re.compile(r"[0-9](?![0-9]*[0-9.])")


def _number(gold: str) -> Fraction | None:
    plain = gold.replace(",\\!", "").replace("{,}", "")
    plain = plain.replace(",", "") if _COMMA.fullmatch(gold) else plain
    if _INTEGER.fullmatch(plain) or _DECIMAL.fullmatch(plain):
        return Fraction(plain)
    return None


def _of_number(write: Callable[[str, Fraction], str | None]) -> Rule:
    def rule(gold: str) -> str | None:
        value = _number(gold)
        plain = gold.replace(",\\!", "").replace("{,}", "").replace(",", "")
        return None if value is None else write(plain, value)

    return rule


def _grouped(separator: str) -> Rule:
    def write(_: str, value: Fraction) -> str | None:
        whole = abs(value) >= 1000 and value.denominator == 1
        return f"{int(value):,}".replace(",", separator) if whole else None

    return _of_number(write)


def _of_match(pattern: re.Pattern[str], write: Callable[[re.Match[str]], str | None]) -> Rule:
    def rule(gold: str) -> str | None:
        found = pattern.fullmatch(gold)
        return write(found) if found else None

    return rule


def _replaced(old: str, new: str) -> Rule:
    return lambda gold: gold.replace(old, new) if old in gold else None


def _is_scalar(gold: str) -> bool:
    """Return whether a gold is a single value, which a name may precede."""
    return not re.search(r"[=<>,\[\]]|\\(?:le|ge|in|text|cup|begin|pm|approx)", gold)


def _scalar(write: Callable[[str], str | None]) -> Rule:
    return lambda gold: write(gold) if _is_scalar(gold) and len(gold) < 80 else None


def _decimal(found: re.Match[str]) -> str | None:
    value = Fraction(int(found[2]), int(found[3]))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return f"{found[1]}{float(value)}" if rest == 1 and float(value) >= 1e-4 else None


def _mixed(found: re.Match[str]) -> str | None:
    whole, rest = divmod(int(found[2]), int(found[3]))
    return f"{found[1]}{whole}\\frac{{{rest}}}{{{found[3]}}}" if whole and rest else None


def _mixed_plain(found: re.Match[str]) -> str | None:
    whole, rest = divmod(int(found[2]), int(found[3]))
    return f"{found[1]}{whole} {rest}/{found[3]}" if whole and rest else None


def _glued(found: re.Match[str]) -> str | None:
    """Return 51/2 for 5 1/2."""
    whole, rest = divmod(int(found[2]), int(found[3]))
    changed = whole and rest and f"{whole}{rest}" != found[2]
    return f"{found[1]}{whole}{rest}/{found[3]}" if changed else None


def _inequality(found: re.Match[str]) -> str | None:
    low, high = found[2].strip(), found[3].strip()
    signs = ["\\le" if each in "[]" else "<" for each in (found[1], found[4])]
    if "infty" in low:
        return f"x {signs[1]} {high}" if "infty" not in high else None
    if "infty" in high:
        return f"{low} {signs[0]} x"
    closed = found[1] == "[" or found[4] == "]"
    return f"{low} {signs[0]} x {signs[1]} {high}" if closed else None


def _scientific(plain: str, value: Fraction) -> str | None:
    if value.denominator != 1 or abs(value) < 1000 or not plain.endswith("00"):
        return None
    digits = plain.rstrip("0")
    places = len(digits.lstrip("-")) - 1
    start = digits if places == 0 else f"{digits[: len(digits) - places]}.{digits[-places:]}"
    return f"{start} \\times 10^{{{len(plain.lstrip('-')) - 1}}}"


def _shuffled(found: re.Match[str]) -> str:
    return ", ".join(reversed([each.strip() for each in found[0].split(",")]))


def _dropped(found: re.Match[str]) -> str:
    return ", ".join(each.strip() for each in found[0].split(",")[1:])


def _next(digit: re.Match[str]) -> str:
    return str((int(digit[0]) + 1) % 10)


def _other_digit(gold: str) -> str | None:
    changed = _DIGIT.sub(_next, gold, count=1)
    return None if changed == gold else changed


SAME: dict[str, Rule] = {
    "as it is": lambda gold: gold,
    "in dollars": lambda gold: f"${gold}$",
    "final period": lambda gold: None if gold.endswith(".") else f"{gold}.",
    "spaces around": lambda gold: f"  {gold} ",
    "inside text": lambda gold: f"\\text{{{gold}}}" if _number(gold) is not None else None,
    "behind a name": _scalar(lambda gold: f"w = {gold}"),
    "behind a function": _scalar(lambda gold: f"g(n) = {gold}" if _number(gold) else None),
    "the answer is": _scalar(lambda gold: f"\\text{{The answer is }}{gold}"),
    "unit, tilde": _of_number(lambda plain, _: f"{plain}~\\text{{cm}}"),
    "unit, thin space": _of_number(lambda plain, _: f"{plain}\\,\\mathrm{{kg}}"),
    "unit, plain": _of_number(lambda plain, _: f"{plain} miles"),
    "noun": _of_number(lambda plain, _: f"{plain} \\text{{ tickets}}"),
    "currency": _of_number(lambda plain, value: f"\\${plain}" if value > 0 else None),
    "comma": _grouped(","),
    "braced comma": _grouped("{,}"),
    "thin space": _grouped("\\,"),
    "tilde": _grouped("~"),
    "space": _grouped(" "),
    "unicode thin space": _grouped("\u202f"),
    "trailing zero": _of_number(lambda plain, _: f"{plain}0" if "." in plain else f"{plain}.0"),
    "plus sign": _of_number(lambda plain, value: f"+{plain}" if value > 0 else None),
    "powers of ten": _of_number(_scientific),
    "exponent as power": _of_match(_EXPONENT, lambda m: f"{m[1]} \\times 10^{{{int(m[2])}}}"),
    "exponent, cdot": _of_match(_EXPONENT, lambda m: f"{m[1]} \\cdot 10^{{{int(m[2])}}}"),
    "exponent, capital": _of_match(_EXPONENT, lambda m: f"{m[1]}E{int(m[2])}"),
    "exponent with unit": _of_match(
        _EXPONENT, lambda m: f"{m[1]}\\times 10^{{{m[2]}}}~\\text{{J}}"
    ),
    "display fraction": _replaced("\\frac", "\\dfrac"),
    "fraction as quotient": _of_match(_FRACTION, lambda m: f"{m[1]}{m[2]}/{m[3]}"),
    "fraction as decimal": _of_match(_FRACTION, _decimal),
    "fraction not reduced": _of_match(
        _FRACTION, lambda m: f"{m[1]}\\frac{{{2 * int(m[2])}}}{{{2 * int(m[3])}}}"
    ),
    "minus inside": _of_match(
        _FRACTION, lambda m: f"\\frac{{-{m[2]}}}{{{m[3]}}}" if m[1] else None
    ),
    "mixed number": _of_match(_FRACTION, _mixed),
    "mixed, plain": _of_match(_FRACTION, _mixed_plain),
    "inequality": _of_match(_PAIR, _inequality),
    "tall brackets": _of_match(_PAIR, lambda m: f"\\left{m[1]}{m[2]},\\,{m[3]}\\right{m[4]}"),
    "element of": _of_match(_PAIR, lambda m: f"x \\in {m[0]}" if "infty" in m[0] else None),
    "list turned": _of_match(_LIST, _shuffled),
    "list as set": _of_match(_LIST, lambda m: f"\\{{{m[0]}\\}}"),
    "list with or": _of_match(
        _LIST, lambda m: " \\text{ or } ".join(each.strip() for each in m[0].split(","))
    ),
    "unicode degree": _replaced("^\\circ", "°"),
    "degree left out": lambda gold: gold[:-6] if gold.endswith("^\\circ") else None,
    "percent left out": lambda gold: gold[:-2] if gold.endswith("\\%") else None,
    "unicode minus": lambda gold: gold.replace("-", "−") if gold.startswith("-") else None,
    "letter alone": _of_match(_LETTER, lambda m: m[1]),
    "letter in bold": _of_match(_LETTER, lambda m: f"\\textbf{{({m[1]})}}"),
    "letter with text": _of_match(_LETTER, lambda m: f"{m[1]}) 42"),
    "option": _of_match(_LETTER, lambda m: f"Option {m[1]}"),
    "base in braces": _of_match(_BASE, lambda m: f"{m[1]}_{{{m[2]}}}"),
    "base left out": _of_match(_BASE, lambda m: m[1]),
    "words without text": _of_match(_WORDS, lambda m: m[1]),
    "words, other case": _of_match(_WORDS, lambda m: f"\\text{{{m[1].swapcase()}}}"),
    "name left out": _of_match(_ASSIGNED, lambda m: m[2]),
    "complex turned": _of_match(
        _COMPLEX, lambda m: f"{m[3]}i + {m[1]}" if m[2] == "+" else f"-{m[3]}i + {m[1]}"
    ),
    "other matrix": _replaced("pmatrix", "bmatrix"),
    "spaces left out": lambda gold: re.sub(r" (?=[-+=(){}\\])", "", gold) if " " in gold else None,
    "box in a sentence": lambda gold: f"{gold}\\,",
}
CHANGED: dict[str, Rule] = {
    "other digit": _other_digit,
    "one more": _of_number(
        lambda plain, value: str(float(value + 1)) if "." in plain else str(value + 1)
    ),
    "other sign": _of_number(
        lambda plain, value: (plain.lstrip("-") if value < 0 else f"-{plain}") if value else None
    ),
    "minus in front": lambda gold: f"-{gold}" if gold.startswith("\\frac") else None,
    "ten times": _of_number(lambda _, value: str(float(10 * value)) if value else None),
    "slightly more": _of_number(lambda plain, _: f"{plain}{'' if '.' in plain else '.'}0000001"),
    "digits apart": _of_number(
        lambda plain, _: f"{plain[0]} {plain[1:]}" if plain.isdigit() and len(plain) == 2 else None
    ),
    "list for a number": _of_number(lambda plain, _: f"{plain}, {int(float(plain)) + 1}"),
    "list of two": lambda gold: (
        f"{gold[0]}, {gold[1:]}" if re.fullmatch(r"[0-9]{4}", gold) else None
    ),
    "second line": _of_number(lambda plain, value: f"{value + 1} \\\\ {plain}"),
    "arrow": _of_number(lambda plain, value: f"{value + 1} \\Rightarrow {plain}"),
    "false equation": _of_number(lambda plain, value: f"{value + 1} = {plain}"),
    "chain": _of_number(lambda plain, value: f"x = {value + 1} = {plain}"),
    "two answers": _scalar(lambda gold: f"{gold} \\text{{ or }} 977"),
    "in words with another": _of_number(lambda plain, value: f"\\text{{{plain} and {value + 1}}}"),
    "plus or minus": _of_number(lambda plain, value: f"\\pm {plain}" if value > 0 else None),
    "to be solved": _of_number(lambda plain, _: f"x+1={plain}"),
    "with a variable": _of_number(lambda plain, _: f"{plain}k"),
    "other exponent": _of_match(_EXPONENT, lambda m: f"{m[1]} \\times 10^{{{int(m[2]) + 1}}}"),
    "other mantissa": _of_match(
        _EXPONENT, lambda m: f"{float(m[1]) + 0.1:.2f} \\times 10^{{{int(m[2])}}}"
    ),
    "exponent left out": _of_match(_EXPONENT, lambda m: m[1] if int(m[2]) else None),
    "turned over": _of_match(
        _FRACTION, lambda m: f"{m[1]}\\frac{{{m[3]}}}{{{m[2]}}}" if m[2] != m[3] else None
    ),
    "glued": _of_match(_FRACTION, _glued),
    "rounded": _of_match(
        _FRACTION,
        lambda m: (
            f"{m[1]}{int(m[2]) / int(m[3]):.2f}"
            if int(m[3]) in {3, 6, 7, 9, 11, 13} and int(m[2]) % int(m[3])
            else None
        ),
    ),
    "as a set": _of_match(_PAIR, lambda m: f"\\{{{m[2]}, {m[3]}\\}}"),
    "other bracket": _of_match(
        _PAIR, lambda m: f"{'(' if m[1] == '[' else '['}{m[2]}, {m[3]}{m[4]}"
    ),
    "ends exchanged": _of_match(
        _PAIR, lambda m: f"{m[1]}{m[3]}, {m[2]}{m[4]}" if m[2].strip() != m[3].strip() else None
    ),
    "one left out": _of_match(_LIST, _dropped),
    "one too many": _of_match(_LIST, lambda m: f"{m[0]}, 977"),
    "other letter": _of_match(_LETTER, lambda m: chr((ord(m[1]) - 64) % 5 + 65)),
    "two letters": _of_match(_LETTER, lambda m: f"{m[1]}, {chr((ord(m[1]) - 64) % 5 + 65)}"),
    "letter multiplied": _of_match(_LETTER, lambda m: f"2{m[1]}"),
    "other base": _of_match(_BASE, lambda m: f"{m[1]}_{{{int(m[2]) + 1}}}"),
    "other words": _of_match(
        _WORDS, lambda m: f"\\text{{{m[1][::-1]}}}" if m[1] != m[1][::-1] else None
    ),
    "other name": _of_match(_ASSIGNED, lambda m: f"{m[1]} = {m[2]} + 1"),
    "other part": _of_match(_COMPLEX, lambda m: f"{m[1]} {'-' if m[2] == '+' else '+'} {m[3]}i"),
    "plus one": _scalar(lambda gold: f"{gold}+1" if _number(gold) is None else None),
    "times two": _scalar(
        lambda gold: f"2\\left({gold}\\right)" if "\\" in gold and gold != "0" else None
    ),
}
STANDING: dict[str, Rule] = {
    "less and more": _of_number(lambda plain, _: f"{plain} + 7 - 7"),
    "sum": _of_number(
        lambda _, value: f"{value - 3} + 3" if value > 3 and value.denominator == 1 else None
    ),
    "product": _of_number(
        lambda _, value: (
            f"2 \\cdot {value / 2}" if value.denominator == 1 and value % 2 == 0 else None
        )
    ),
    "quotient": _of_number(
        lambda _, value: f"\\frac{{{3 * value}}}{{3}}" if value.denominator == 1 else None
    ),
    "root": _of_number(
        lambda _, value: (
            f"\\sqrt{{{value * value}}}" if value.denominator == 1 and value > 0 else None
        )
    ),
    "plus nothing": _scalar(lambda gold: f"{gold} + 5 - 5" if _number(gold) is None else None),
}
