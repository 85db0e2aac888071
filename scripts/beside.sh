#!/usr/bin/env bash
# beside.sh LOG COMMAND_A COMMAND_B: run both commands at the same time, and fail if one fails.
# The output of A, which gets less of the CPU, is kept in LOG and shown after that of B.
set -uo pipefail
mkdir -p "$(dirname "$1")"
nice bash -c "$2" > "$1" 2>&1 &
a=$!
trap 'kill $a 2> /dev/null' EXIT
echo "At the same time: $2 (its output follows at the end)"
bash -c "$3"
b=$?
wait $a
a=$?
cat "$1"
exit $((a > b ? a : b))
