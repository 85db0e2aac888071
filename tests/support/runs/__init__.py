"""Programs with their own engine, each run in its own process by a test."""

import os
import subprocess
import sys

from tests.support import zygote
from tests.support.servers import ROOT


def run(*command: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run Python with this `command` in the repository root, the engine in the same process."""
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    return zygote.run([sys.executable, *command], cwd=ROOT, env=environment, timeout=timeout)
