r"""Normalization of answers in LaTeX, Unicode or plain text to one notation.

`normalize` changes the layout, never the value. Only significant spaces remain: between two digits
or letters ("2 3" is not "23"), and after a comma that separates ("1, 200" is a list and "1,200" may
be a number). Text in any font becomes ``\text{...}``.
"""

import re

__all__ = ["normalize", "unwrapped"]

_UNICODE = {
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys(
        "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "
    ),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("×✕", r"\times "),
    **dict.fromkeys("·⋅∙", r"\cdot "),
    **dict.fromkeys("⇒⟹", r"\Rightarrow "),
    **dict.fromkeys("→⟶", r"\to "),
    **dict.fromkeys("∅⌀", r"\emptyset "),
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∈": r"\in ",
    "±": r"\pm ",
    "⇔": r"\Leftrightarrow ",
    "％": "%",
    "，": ", ",
    "：": ":",
    "√": r"\sqrt ",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "′": "'",
    "’": "'",
}
_TRANSLATION = str.maketrans(_UNICODE)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")

_ALIASES = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "leq": "le",
    "leqslant": "le",
    "geq": "ge",
    "geqslant": "ge",
    "neq": "ne",
    "lt": "<",
    "gt": ">",
    "rightarrow": "to",
    "longrightarrow": "to",
    "implies": "Rightarrow",
    "Longrightarrow": "Rightarrow",
    "Longleftrightarrow": "Leftrightarrow",
    "iff": "Leftrightarrow",
    "varnothing": "emptyset",
    "infin": "infty",
    "lbrace": "{",
    "rbrace": "}",
    "lbrack": "[",
    "rbrack": "]",
    "ast": "*",
    "div": "/",
    "colon": ":",
    "slash": "/",
    "simeq": "approx",
    "thickapprox": "approx",
    "bar": "overline",
    "dots": "ldots",
    "cdots": "ldots",
    "bmod": "mod",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "bullet": "cdot",
}
_PLAIN = frozenset("<>[]*/:|")  # aliases without a backslash

_FONTS = "textbf|textit|textrm|texttt|textsf|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox"
_ORDINAL = "(?:st|nd|rd|th)"
_REWRITES: tuple[tuple[str, str], ...] = (
    (r"\s+", " "),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\\\ *\[[0-9.]+ *[a-z]{2}\]", r"\\\\"),  # a line break with its height
    (r"\{:\}", ":"),
    (r"(?<=[0-9]) *(?:\\text\{ *to *\}|\bto\b) *(?=[0-9])", ":"),
    (r"\*\*|`|\\displaystyle|\\textstyle|\\limits|\\boldsymbol|\\bm(?![a-zA-Z])", ""),
    (r"\\(?:left|right|[bB]igg?[lr]?|middle)(?![a-zA-Z])\.?", ""),
    (r"(?<!\\)\\[()]|(?<!\\)\\[\[\]]", ""),  # \( \) \[ \]; \\[ is a line break
    (r"(?<!\\)\$", ""),
    (r"(?<=[0-9])(?:\{,\}|,(?:\\!|\{\}))(?=[0-9]{3})", ""),
    (r"(?<!\\)\\!|\\negthinspace", ""),
    (r"(?<!\\)\\[,;: ]|~|\\(?:thin|med|thick|en)space|\\q?quad(?![a-zA-Z])", " "),
    (r" {2,}", " "),
    (r"\\(?:text)?color *\{[^{}]*\} ?|\\(?:underline|fbox|framebox) *(?=\{)", ""),
    (r"\{ *, *\}", ","),
    (rf"\\(?:{_FONTS})(?![a-zA-Z]) *(?=\{{)", r"\\text"),
    (r" ?\(?(?:\\text\{ ?\(?)? ?\b(?:in )?base[ -]?\}? ?\{?([0-9]+|[a-z]+)[) }]*$", r"_{\1}"),
    (r"\\text\{ *([eid]) *\}", r" \1 "),  # constants set upright
    (r"\\text\{([^{}]*)\}", r"\\text{\1}"),
    (r"(?<![<>=])>=", r"\\ge "),
    (r"(?<![<>=])<=(?!>)", r"\\le "),
    (r"!=", r"\\ne "),
    (r"(?<![<=])=>", r"\\Rightarrow "),
    (r"->", r"\\to "),
    (r"\\%", "%"),
    (r"\\(?:degree|textdegree|deg)(?![a-zA-Z])|\^ *\{ *\\circ *\}|\^ *\\circ", r"^\\circ "),
    (r"\\text\{ *(?:degrees?) *\}|(?<=[0-9]) *degrees?\b", r"^\\circ "),
    (r"\\text\{ *(?:percent|per cent|pct) *\}|(?<=[0-9]) *(?:percent|per cent)\b", "%"),
    (r"\\text\{ *(,? ?(?:or|and)) *\}", r" \1 "),
    (rf"(?<=[0-9]) ?\^ ?(?:\\text)? ?\{{ ?(?:\\text\{{ ?{_ORDINAL} ?\}}|{_ORDINAL}) ?\}}", ""),
    (rf"(?<=[0-9]){_ORDINAL}\b", ""),
    (r"\\text\{ *\}", ""),
    (r"\\(frac|binom) *([0-9a-z]) *([0-9a-z])(?![a-z])", r"\\\1{\2}{\3}"),
    (r"\\frac *(\\pi) *([0-9a-z])(?![0-9a-z])", r"\\frac{\1}{\2}"),
    (r"\\(frac|binom) *([0-9a-z]) *(?=\{)", r"\\\1{\2}"),
    (r"(\\(?:frac|binom) *\{[^{}]*\}) *([0-9a-z])", r"\1{\2}"),
    (r"\\sqrt *([0-9a-z])", r"\\sqrt{\1}"),
    (r"\bsqrt *\( *([^()]*)\)|\bsqrt *([0-9]+)", r"\\sqrt{\1\2}"),
    (
        r"(?:[\(\[] ?)?\\begin\{array\} *(?:\{[lcr| ]*\})?(.*?)\\end\{array\} *[\)\]]?",
        r"\\begin{matrix}\1\\end{matrix}",
    ),
    (r"\\(begin|end)\{[pbB]matrix\}", r"\\\1{matrix}"),
    (r"(?:\\\\ *)+(?=\\end\{)", ""),
    (r"\\\{ *\\\}", r"\\emptyset "),
    (r"\binfinity\b|(?<![\\a-zA-Z])inf(?:ty)?\b", r"\\infty "),
)
_REWRITERS = tuple((re.compile(found, re.DOTALL), by) for found, by in _REWRITES)
_COMMAND = re.compile(r"\\([a-zA-Z]+) ?")
_SCRIPT = re.compile(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|[₀₁₂₃₄₅₆₇₈₉]+")
_SPACE = re.compile(r" *, +| +")
_LEAD = re.compile(
    r"(?:\\text\{ *)?(?:so |thus |therefore,? |hence )?(?:the |my )?(?:final )?"
    r"(?:(?:correct )?(?:answer|result|choice|option)(?: is|:| =) *:?|(?:it is|equals) )(?: *\})?",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_TAIL = re.compile(r"(?:(?<!\.)\.|[;,]|\\\\)+$")


def normalize(text: str) -> str:
    """Return the answer in normalized notation, without an outer wrapper or a final period."""
    text = _COMMAND.sub(_alias, _SCRIPT.sub(_lowered, text).translate(_TRANSLATION))
    for pattern, replacement in _REWRITERS:
        text = pattern.sub(replacement, text)
    text = _SPACE.sub(_kept, text)
    before = None
    while before != text:
        before, text = text, _peeled(text.strip())
    return text


def unwrapped(text: str) -> str:
    r"""Return a normalized text with the contents of ``\text{...}`` as plain words."""
    return " ".join(_TEXT.sub(r" \1 ", text).split())


def _alias(command: re.Match[str]) -> str:
    name = _ALIASES.get(command[1])
    if name is None:
        return command[0]
    return name if name in _PLAIN else f"\\{name} "


def _lowered(script: re.Match[str]) -> str:
    return f"{'^' if script[1] else '_'}{{{script[0].translate(_RAISED)}}}"


def _kept(space: re.Match[str]) -> str:
    """Return a significant space, or an empty text."""
    if "," in space[0]:
        return ", "
    text, start, end = space.string, space.start(), space.end()
    if start == 0 or end == len(text):
        return ""
    before, after = text[start - 1], text[end]
    significant = (before.isalnum() or before in "}%.:)'") and (after.isalnum() or after in "$(")
    return " " if significant else ""


def _peeled(text: str) -> str:
    """Return the text without one outer layer: lead-in, braces, text command or final period."""
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    if text.startswith("\\text{") and _closes_at_end(text, 5):
        return text[6:-1]
    if text.startswith("{") and _closes_at_end(text, 0):
        return text[1:-1]
    return _TAIL.sub("", text) if len(text) > 1 else text


def _closes_at_end(text: str, opening: int) -> bool:
    """Return whether the brace at `opening` is closed by the last character."""
    depth = 0
    for place in range(opening, len(text)):
        if text[place] in "{}" and text[place - 1 : place] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place == len(text) - 1
    return False
