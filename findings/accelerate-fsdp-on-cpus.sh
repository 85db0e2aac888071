#!/usr/bin/env bash
# accelerate: FSDP on CPUs is DDP, without a word.
#
# Guess: two CPU processes whose accelerate configuration asks for FSDP shard the model, as PyTorch's
# fully_shard does over gloo, or fail. Seen in 1.15.0: only GPU-like devices get the FSDP plugin.
# prepare() wraps the model in DistributedDataParallel, every process holds all of its weights, and
# no warning says so.
# For users: a test of sharded saving and loading that runs on CPUs tests unsharded code and passes.
# Let it check that parameters are DTensors.
#
# Installs some 1 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
sed -n 's/^\([a-z0-9_.-]*==[^ ]*\) .*/\1/p' "$(dirname "$0")/../locks/cpu.txt" > "$folder/pinned.txt"
"$folder/venv/bin/pip" install -q torch accelerate numpy -c "$folder/pinned.txt"

cat > "$folder/shard.py" <<'PY'
import sys

import accelerate
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def held(model):
    return sum(getattr(each, "_local_tensor", each).numel() for each in model.parameters())


accelerator = accelerate.Accelerator()
prepared = accelerator.prepare(torch.nn.Linear(8, 8, bias=False))
sharded = torch.nn.Linear(8, 8, bias=False)
fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
seen = accelerator.distributed_type.name, type(prepared).__name__, held(prepared), held(sharded)
accelerator.wait_for_everyone()
if accelerator.is_main_process:
    print("accelerate", accelerate.__version__)
    print("guess: FSDP, and each of 2 processes holds 32 of 64 weights")
    print(f"seen: {seen[0]}, {seen[1]}, and each holds {seen[2]} of 64 weights")
    print(f"seen: with torch's fully_shard each holds {seen[3]} of 64 weights")
accelerator.end_training()
sys.exit(seen != ("MULTI_CPU", "DistributedDataParallel", 64, 32))
PY
ACCELERATE_USE_CPU=true ACCELERATE_USE_FSDP=true FSDP_VERSION=2 OMP_NUM_THREADS=1 \
    "$folder/venv/bin/python" -m torch.distributed.run --standalone --nproc-per-node 2 \
    "$folder/shard.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
if grep -iE 'fsdp|shard' "$folder/log"; then
    echo "a line of the log says so now"
    exit 1
fi
