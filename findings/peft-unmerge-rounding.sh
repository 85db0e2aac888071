#!/usr/bin/env bash
# peft: merge_adapter() and then unmerge_adapter() do not give the base weights back.
#
# Guess: unmerging undoes merging, so the frozen base of a LoRA training stays what it was. Seen in
# 0.21.2: merging adds the adapter's product to the base weights in place, and unmerging subtracts
# it, without a copy. With a bfloat16 base both round, and while the adapter changes from one round to
# the next, as in training, the errors add up (safe_merge=True does not change that). In float32 as
# many weights change, by some 1e-8 of their norm.
# For users: TRL 1.16 does both at each synchronization of a LoRA model's weights with vLLM. The
# adapter is trained on a base that drifts, and is used with the original one. With a bfloat16 base
# synchronize seldom, or restore the base weights from a copy after unmerging.
#
# Installs some 1 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
sed -n 's/^\([a-z0-9_.-]*==[^ ]*\) .*/\1/p' "$(dirname "$0")/../locks/cpu.txt" > "$folder/pinned.txt"
"$folder/venv/bin/pip" install -q torch peft transformers accelerate numpy -c "$folder/pinned.txt"

cat > "$folder/merge.py" <<'PY'
import sys

import peft
import torch


def lora_layer(dtype):
    """A frozen layer of 256 x 256 weights with an adapter of some 2% of their size."""
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
    torch.nn.init.normal_(base[0].weight, std=0.02)
    model = peft.get_peft_model(base.to(dtype), peft.LoraConfig(target_modules=["0"], r=8))
    layer = model.base_model.model[0]
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.004)
    return model, layer.base_layer.weight, layer.lora_B["default"].weight


def drift(dtype, rounds):
    """The share of changed base weights, and the size of the change relative to theirs."""
    model, base, adapter = lora_layer(dtype)
    before = base.detach().clone()
    for _ in range(rounds):
        model.merge_adapter()
        model.unmerge_adapter()
        with torch.no_grad():
            adapter.add_(1e-4 * torch.randn_like(adapter))
    change = (base.float() - before.float()).norm() / before.float().norm()
    return (base != before).float().mean().item(), change.item()


print("peft", peft.__version__, "torch", torch.__version__)
print("guess: no base weight changes")
changes = {}
for dtype in (torch.bfloat16, torch.float32):
    for rounds in (1, 8, 64):
        share, changes[dtype, rounds] = drift(dtype, rounds)
        print(f"seen: {dtype}, rounds: {rounds}, {share:.1%} of the base weights changed, "
              f"by {changes[dtype, rounds]:.1e} of their norm")
sys.exit(not changes[torch.bfloat16, 64] > changes[torch.bfloat16, 1] > 1e-4)
PY
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/merge.py"
