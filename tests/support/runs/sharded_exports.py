"""Run by torchrun: a small model, sharded over two processes on CPUs, is trained and exported.

accelerate (1.15, `AcceleratorState.__init__`) shards on GPUs only; told that it has them, it
shards over gloo just as well.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from training.output import export
from training.processes import on_main
from training.rollout_func import Counters
from training.survival import Seals, guarded, last_whole


def trainer(output: Path) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    rows = [{"input_ids": [1, 2, 3, each], "labels": [1, 2, 3, each]} for each in range(4, 20)]
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=2,
        save_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    assert arguments.device.type == "cpu"
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return guarded(Trainer)(
        model=Qwen3ForCausalLM(Qwen3Config(vocab_size=32, **sizes, **heads)),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        callbacks=[Seals(Counters())],
    )


def main(output: Path) -> None:
    trained = trainer(output)
    trained.train()
    trained.save_model(str(output / "bare"))
    exported = export(trained, output)
    checkpoint = on_main(lambda: last_whole(output))
    again = trainer(output)
    again.train(resume_from_checkpoint=str(checkpoint))
    export(again, output / "again")
    found = {
        "type": trained.accelerator.state.fsdp_plugin.state_dict_type.name,
        "sharded": type(next(trained.model.parameters())).__name__,
        "exported": exported,
        "steps": again.state.global_step,
    }
    if PartialState().is_main_process:
        (output / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
