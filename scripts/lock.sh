#!/usr/bin/env bash
# Regenerates the pinned locks from pyproject.toml. Run after changing a dependency:
#   scripts/lock.sh [uv options, such as --find-links DIR or --upgrade-package NAME]
# The CPU lock needs an index or folder that has torch's CPU build; the default is PyTorch's own.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || uv=uv
common=(--extra serve --extra train --extra dev --generate-hashes --no-header --no-annotate
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --quiet)
if [ $# -eq 0 ]; then
    set -- --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
fi
"$uv" pip compile pyproject.toml --extra cpu --override locks/overrides.txt \
    "${common[@]}" --no-emit-index-url --no-emit-find-links -o locks/cpu.txt "$@"
"$uv" pip compile pyproject.toml --extra cuda \
    "${common[@]}" --no-emit-index-url -o locks/cuda.txt
