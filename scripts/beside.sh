#!/usr/bin/env bash
# beside.sh LOG COMMAND_A COMMAND_B: run both commands at the same time, and fail if one fails.
# The output of A, which gets less of the CPU, is kept in LOG and shown after that of B.
set -uo pipefail
mkdir -p "$(dirname "$1")"
nice bash -c "$2" > "$1" 2>&1 &
pid=$!
trap 'kill "$pid" 2> /dev/null' EXIT
echo "At the same time: $2 (its output follows at the end)"
bash -c "$3"
status_b=$?
wait "$pid"
status_a=$?
trap - EXIT
cat "$1"
exit $((status_a > status_b ? status_a : status_b))
