#!/usr/bin/env bash
# setproctitle: a title is silently not set once the environment was replaced.
#
# Guess: the library, which vLLM uses to name its processes (`VLLM::EngineCore`), sets the title or
# says why not. Seen: in a process that cleared and refilled os.environ before the first import, as
# launchers and fork servers do, setproctitle() returns, raises nothing, and the title stays. An
# operator who looks for the engine by its name finds none. The library locates its room by the
# original environment; import it (and ask for the title once) before the environment is replaced.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'setproctitle==1.3.8'

cat > "$folder/title.py" <<'PY'
import os
import sys


def replace_environment():
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(kept)


if sys.argv[1] == "late":
    replace_environment()
import setproctitle

if sys.argv[1] == "early":
    setproctitle.getproctitle()
    replace_environment()
setproctitle.setproctitle("VLLM::EngineCore")
with open("/proc/self/cmdline") as file:
    print(file.read().split("\0")[0])
PY

early=$("$folder/venv/bin/python" "$folder/title.py" early)
late=$("$folder/venv/bin/python" "$folder/title.py" late)
echo "setproctitle $("$folder/venv/bin/python" -c 'import importlib.metadata as m; print(m.version("setproctitle"))')"
echo "guess: the title is set in both processes"
echo "imported before the environment was replaced: title ${early##*/}"
echo "imported after the environment was replaced:  title ${late##*/}"
[ "$early" = "VLLM::EngineCore" ] && [ "$late" != "VLLM::EngineCore" ]
