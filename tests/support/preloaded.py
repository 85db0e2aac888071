"""Imports of the process from which tests fork servers and trainers (`tests.support.zygote`).

vLLM comes first: importing TRL changes its level of logging. Another version of vLLM is tested
without TRL (`scripts/test_vllm.sh`).
"""

# ruff: noqa: F401, I001
import importlib.util

import setproctitle

import service.process.server
import vllm.model_executor.models.qwen3
import vllm.v1.worker.cpu_worker

if importlib.util.find_spec("trl"):
    import training.cli
    import training.evaluation.command
    import training.evaluation.report
    import training.evaluation.run
    import training.rollouts.offline
    import training.grpo.train

setproctitle.getproctitle()  # it must locate the process title's memory before a fork
