#!/usr/bin/env bash
# latex2sympy2-extended: with is_real=False the letter i is still no imaginary unit.
#
# Guess: is_real=False reads complex numbers, as the section "Complex Number Support" of the package
# suggests, so that "2i" is 2*I. Seen in 1.11.0: is_real only sets an assumption of the symbols it
# makes, "i" is one of these symbols with each of its values, and only the capital "I" is the unit.
# math-verify passes is_real=False for formulas such as (1+i)^2, and takes it and 2i for different.
# For users: a right complex answer in another form than the reference counts as wrong. Replace the
# symbol i by sympy.I in parsed answers whose i is the unit.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'math-verify==0.9.0' 'latex2sympy2-extended==1.11.0' \
    'antlr4-python3-runtime==4.13.2' 'sympy==1.14.0' 'mpmath==1.3.0'

cat > "$folder/unit.py" <<'PY'
import importlib.metadata
import sys

from latex2sympy2_extended import latex2sympy
from math_verify import parse, verify

print("latex2sympy2-extended", importlib.metadata.version("latex2sympy2-extended"))
print("guess: 2i has no free symbols with is_real=False, and (1+i)^2 equals 2i")
free = {}
for text, is_real in [("2i", True), ("2i", None), ("2i", False), ("2I", False)]:
    value = latex2sympy(text, is_real=is_real)
    free[text, is_real] = sorted(map(str, value.free_symbols))
    print(f"seen: {text} with is_real={is_real}: {value}, free symbols {free[text, is_real]}")
equal = verify(parse("$(1+i)^2$"), parse("$2i$"))
print(f"seen: verify((1+i)^2, 2i) of math-verify is {equal}")
print(f"seen: verify((1+I)^2, 2I) of math-verify is {verify(parse('$(1+I)^2$'), parse('$2I$'))}")
sys.exit(not (free["2i", False] == ["i"] and free["2I", False] == [] and not equal))
PY
"$folder/venv/bin/python" "$folder/unit.py"
