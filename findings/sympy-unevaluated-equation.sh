#!/usr/bin/env bash
# sympy: an equation made with evaluate=False is evaluated by the next replacement in it.
#
# Guess: Eq(cos(1), 2.1, evaluate=False) stays an equation until doit() is called, and replacing the
# decimal 2.1 by the fraction 21/10 gives the equation cos(1) = 21/10. Seen in 1.14.0: the object
# does not keep evaluate=False; xreplace() and subs() build it again with evaluation on, so that the
# result is the truth value False. A replacement that changes nothing leaves the equation as it was.
# For users: two different false equations turn into the same False and compare equal. Replace in
# .lhs and .rhs, and build the equation again with evaluate=False.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'sympy==1.14.0' 'mpmath==1.3.0'

cat > "$folder/equation.py" <<'PY'
import sys

import sympy
from sympy import Eq, Float, Rational, cos, pi

FRACTIONS = {Float("2.1"): Rational(21, 10), Float("3.5"): Rational(7, 2)}

first = Eq(cos(1), Float("2.1"), evaluate=False)
second = Eq(pi, Float("3.5"), evaluate=False)
print("sympy", sympy.__version__)
print(f"two equations: {first} and {second}, equal: {first == second}")
print("guess: xreplace() gives Eq(cos(1), 21/10) and Eq(pi, 7/2), equal: False")
replaced = [first.xreplace(FRACTIONS), second.xreplace(FRACTIONS)]
print(f"seen: xreplace() gives {replaced[0]} and {replaced[1]}, equal: {replaced[0] == replaced[1]}")
print(f"seen: subs() gives {first.subs(FRACTIONS)}")
print(f"seen: xreplace() of nothing that occurs gives {first.xreplace({pi: pi})}")
sides = [
    Eq(equation.lhs.xreplace(FRACTIONS), equation.rhs.xreplace(FRACTIONS), evaluate=False)
    for equation in (first, second)
]
print(f"replaced in the sides: {sides[0]} and {sides[1]}, equal: {sides[0] == sides[1]}")
sys.exit(replaced != [sympy.false, sympy.false] or first == second or sides[0] == sides[1])
PY
"$folder/venv/bin/python" "$folder/equation.py"
