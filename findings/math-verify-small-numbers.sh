#!/usr/bin/env bash
# math-verify: two different numbers count as equal as soon as both are small.
#
# Guess: verify() compares exact answers exactly, and rounds relative to the size of the numbers
# where it rounds. Seen in 0.9.0: the difference of two exact expressions is evaluated with
# evalf(chop=True, n=15), which drops whatever is below some 1e-15, and decimals are rounded to six
# places after the point. 1/20! equals 1/21! then, and 1/2004! equals 1/2006!.
# For users: a wrong answer to a question with a tiny result (a probability, a factorial in a
# denominator) is rewarded. A larger numeric_precision moves the threshold and does not remove it,
# so compare such answers as exact numbers before asking verify().
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'math-verify==0.9.0' 'latex2sympy2-extended==1.11.0' \
    'antlr4-python3-runtime==4.13.2' 'sympy==1.14.0' 'mpmath==1.3.0'

cat > "$folder/small.py" <<'PY'
import importlib.metadata
import sys

from math_verify import parse, verify

PAIRS = [
    (r"\frac{1}{4!}", r"\frac{1}{5!}", False),
    (r"\frac{1}{20!}", r"\frac{1}{21!}", True),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", True),
    (r"\frac{1}{2^{60}}", r"\frac{1}{2^{64}}", True),
    ("0.0000001", "0.0000002", True),
]


def equal(left, right, **options):
    return verify(parse(f"${left}$"), parse(f"${right}$"), **options)


print("math-verify", importlib.metadata.version("math-verify"))
print("guess: False for each pair of different numbers")
as_noted = True
for left, right, noted in PAIRS:
    seen = equal(left, right)
    as_noted = as_noted and seen == noted
    print(f"seen: verify({left}, {right}) is {seen}")
for left, right, noted in [PAIRS[1][:2] + (False,), PAIRS[2]]:
    seen = equal(left, right, numeric_precision=100)
    as_noted = as_noted and seen == noted
    print(f"with numeric_precision=100: verify({left}, {right}) is {seen}")
sys.exit(not as_noted)
PY
"$folder/venv/bin/python" "$folder/small.py"
