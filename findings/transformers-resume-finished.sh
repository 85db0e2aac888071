#!/usr/bin/env bash
# transformers: resuming a run that is finished trains on, and drops the run's true last checkpoint.
#
# Guess: train(resume_from_checkpoint=True) of a run that has reached max_steps does nothing. Seen
# in 5.17.0: Trainer looks at max_steps only after a step. Unless step max_steps ends an epoch, each
# resumption makes one step more, changes the weights and saves the next checkpoint, and
# save_total_limit deletes the oldest, which soon is the checkpoint of step max_steps.
# For users: a job that is restarted after its end, as supervisors and schedulers do, replaces its
# result. Compare global_step in the last checkpoint's trainer_state.json with max_steps first.
#
# Installs some 1 GB. If the default index has no CPU builds of torch, set PIP_EXTRA_INDEX_URL to one
# that has them.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
sed -n 's/^\([a-z0-9_.-]*==[^ ]*\) .*/\1/p' "$(dirname "$0")/../locks/cpu.txt" > "$folder/pinned.txt"
"$folder/venv/bin/pip" install -q torch transformers accelerate numpy -c "$folder/pinned.txt"

cat > "$folder/resume.py" <<'PY'
import os
import sys

import torch
import transformers
from transformers import Trainer, TrainingArguments

MAX_STEPS = 3


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, y):
        return {"loss": ((self.layer(x) - y) ** 2).mean()}


def train(folder, steps_of_an_epoch, resume):
    torch.manual_seed(0)
    arguments = TrainingArguments(
        folder, max_steps=MAX_STEPS, per_device_train_batch_size=1, save_steps=1,
        save_total_limit=2, lr_scheduler_type="constant", learning_rate=0.1, use_cpu=True,
        report_to=[], disable_tqdm=True, logging_strategy="no",
    )
    data = [{"x": torch.ones(1), "y": torch.ones(1)}] * steps_of_an_epoch
    trainer = Trainer(Line(), arguments, train_dataset=data)
    step = trainer.train(resume_from_checkpoint=resume).global_step
    weight = trainer.model.layer.weight.item()
    return step, round(weight, 3), sorted(os.listdir(folder))


print("transformers", transformers.__version__)
print(f"guess: with max_steps={MAX_STEPS}, resuming stays at step {MAX_STEPS}")
seen = {}
for steps_of_an_epoch in (10, MAX_STEPS):
    print(f"epochs of {steps_of_an_epoch} steps:")
    for resumed in range(3):
        folder = f"{sys.argv[1]}/run{steps_of_an_epoch}"
        step, weight, kept = train(folder, steps_of_an_epoch, resumed > 0)
        seen[steps_of_an_epoch, resumed] = step, kept
        print(f"  seen: resumed {resumed} times: step {step}, weight {weight}, kept {kept}")
sys.exit(
    seen[10, 2] != (MAX_STEPS + 2, ["checkpoint-4", "checkpoint-5"])
    or seen[MAX_STEPS, 2] != (MAX_STEPS, ["checkpoint-2", "checkpoint-3"])
)
PY
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/resume.py" "$folder" 2> "$folder/log" \
    | grep -v "'train_runtime'" || { cat "$folder/log" >&2; exit 1; }
