#!/usr/bin/env bash
# safetensors: a file that cannot be written raises no OSError.
#
# Guess: save_file() fails like every write in Python, with an OSError, as open() in the same place
# does and as safetensors itself does for reading (FileNotFoundError). Seen in 0.8.0: a missing
# folder raises SafetensorError, which derives from Exception alone and carries no errno; the
# operating system's error is only in its text.
# For users: `except OSError` around the saving of a checkpoint catches a full disk for the
# configuration and the tokenizer, and not for the weights, by far the largest files. Catch
# SafetensorError too.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'safetensors==0.8.0' 'numpy==2.3.5'

cat > "$folder/save.py" <<'PY'
import importlib.metadata
import sys

import numpy
from safetensors import safe_open
from safetensors.numpy import save_file

missing = sys.argv[1] + "/missing/model.safetensors"


def error_of(action):
    try:
        action()
    except Exception as error:
        return error
    raise SystemExit("no error at all")


print("safetensors", importlib.metadata.version("safetensors"))
print("guess: each of the three raises an OSError")
errors = {
    "open() to write": error_of(lambda: open(missing, "wb")),
    "safe_open() to read": error_of(lambda: safe_open(missing, "numpy")),
    "save_file()": error_of(lambda: save_file({"weight": numpy.zeros(2)}, missing)),
}
for name, error in errors.items():
    print(f"seen: {name} raises {type(error).__name__}, an OSError: {isinstance(error, OSError)}")
print("its text:", str(errors["save_file()"]).replace(sys.argv[1], "FOLDER"))
print("its errno:", getattr(errors["save_file()"], "errno", None))
sys.exit([isinstance(error, OSError) for error in errors.values()] != [True, True, False])
PY
"$folder/venv/bin/python" "$folder/save.py" "$folder"
