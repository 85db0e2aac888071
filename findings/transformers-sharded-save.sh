#!/usr/bin/env bash
# transformers: save_model() under FSDP's SHARDED_STATE_DICT writes nothing and reports nothing.
#
# Guess: Trainer.save_model(folder) leaves a model in the folder, or raises. Seen in 5.17.0: it saves
# only if the state-dict type is FULL_STATE_DICT. With SHARDED_STATE_DICT, which accelerate's
# questionnaire offers and which suits checkpoints, the folder stays empty; there is no warning and
# the exit status is 0.
# For users: a training script that ends with save_model() loses its result. Set
# fsdp_state_dict_type: FULL_STATE_DICT, or gather the weights with accelerator.get_state_dict().
#
# Two processes shard a small model with FSDP2 over gloo, on CPUs; accelerate shards there once it is
# told that it has GPUs. Installs some 1 GB. If the default index has no CPU builds of
# torch, set PIP_EXTRA_INDEX_URL to one that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
sed -n 's/^\([a-z0-9_.-]*==[^ ]*\) .*/\1/p' "$(dirname "$0")/../locks/cpu.txt" > "$folder/pinned.txt"
"$folder/venv/bin/pip" install -q torch transformers accelerate numpy -c "$folder/pinned.txt"

cat > "$folder/save.py" <<'PY'
import os
import sys

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

folder = sys.argv[1]
arguments = TrainingArguments(
    folder, max_steps=1, per_device_train_batch_size=1, use_cpu=True, report_to=[],
    disable_tqdm=True, save_strategy="no", logging_strategy="no",
)
assert arguments.device.type == "cpu"
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
config = Qwen3Config(
    vocab_size=64, hidden_size=16, head_dim=8, intermediate_size=16, num_attention_heads=2,
    num_key_value_heads=2, num_hidden_layers=1,
)
row = {"input_ids": torch.arange(8), "labels": torch.arange(8)}
trainer = Trainer(Qwen3ForCausalLM(config), arguments, train_dataset=[row] * 4)
trainer.train()
trainer.save_model(folder)
if trainer.is_world_process_zero():
    kind = trainer.accelerator.state.fsdp_plugin.state_dict_type.name
    weights = type(next(trainer.model.parameters())).__name__
    files = sorted(os.listdir(folder))
    print(f"seen: transformers {transformers.__version__}, {kind}, weights are {weights}: {files}")
    sys.exit(("model.safetensors" in files) != (kind == "FULL_STATE_DICT") or weights != "DTensor")
PY
echo "guess: save_model() writes model.safetensors under both types"
for kind in FULL_STATE_DICT SHARDED_STATE_DICT; do
    ACCELERATE_USE_CPU=true ACCELERATE_USE_FSDP=true FSDP_VERSION=2 FSDP_STATE_DICT_TYPE=$kind \
        FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_RESHARD_AFTER_FORWARD=true \
        HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m torch.distributed.run \
        --standalone --nproc-per-node 2 "$folder/save.py" "$folder/$kind" 2> "$folder/log" \
        | grep '^seen' || { cat "$folder/log" >&2; exit 1; }
done
if grep -iE 'state.dict|not sav|no weights' "$folder/log"; then
    echo "a line of the log says so now"
    exit 1
fi
