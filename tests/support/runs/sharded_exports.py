"""Train a small model, sharded over two processes on CPUs, and export it; run by torchrun.

accelerate (1.15, `AcceleratorState.__init__`) shards on GPUs only; if told that it has them, it
shards over gloo as well.
"""

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from tests.support.runs.small import arguments, trainer_of
from training.run.checkpoints import last_intact
from training.run.output import export
from training.run.processes import on_main


def trainer(output: Path) -> Any:
    chosen = arguments(output, steps=2)
    assert chosen.device.type == "cpu"
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return trainer_of(chosen)


def main(output: Path) -> None:
    trained = trainer(output)
    trained.train()
    trained.save_model(str(output / "bare"))
    exported = export(trained, output)
    checkpoint = on_main(lambda: last_intact(output))
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
