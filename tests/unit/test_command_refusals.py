"""What the command line refuses before anything is loaded."""

import argparse
import importlib
from typing import Any

import pytest
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from service.cli import MIDDLEWARE, _check_bases, _check_processes
from service.config.layers import BadOption
from service.config.server import Defaults
from service.process.server import _set_cpu_defaults
from service.savings.plan import Plan
from stepgrpo_core import InvalidSetting


def arguments(**more: Any) -> argparse.Namespace:
    found = {
        "api_server_count": None,
        "headless": False,
        "grpc": False,
        "model": "models/demo-base",
        "served_model_name": ["demo-base", "demo"],
        "enable_lora": True,
    }
    return argparse.Namespace(**(found | more))


@pytest.mark.parametrize("path", MIDDLEWARE)
def test_vllm_can_import_each_middleware_by_its_path(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


# More processes than one: their figures would not be everyone's.


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_metrics_of_several_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _check_processes(arguments(api_server_count=1))
    monkeypatch.setenv(name, "")  # prometheus_client looks whether it is there
    with pytest.raises(BadOption, match=f"environment: {name}='' is invalid: unset it"):
        _check_processes(arguments())


def test_several_api_processes_are_refused_with_what_to_do_instead() -> None:
    with pytest.raises(InvalidSetting, match=r"several servers .* one --exit-state file"):
        _check_processes(arguments(api_server_count=2))


# The base of a holdout, and of pairs.

MEASURED = [("holdout_base", {"holdout": 0.1}), ("pairs_base", {"pairs": 0.1})]


def check(plan: dict[str, Any], **more: Any) -> None:
    _check_bases(arguments(**more), Defaults(plan=Plan(**plan)))


@pytest.mark.parametrize(("option", "plan"), MEASURED)
def test_a_base_is_the_model_itself_under_any_of_its_names(
    option: str, plan: dict[str, Any]
) -> None:
    check(plan, enable_lora=False)
    check(plan | {option: "demo-base"})
    check(plan | {option: "demo"})
    check(plan | {option: "demo"}, served_model_name="demo")
    check(plan | {option: "models/demo-base"}, served_model_name=None)


@pytest.mark.parametrize(("option", "plan"), MEASURED)
@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("demo-step-grpo", {}, "use demo-base or demo"),
        ("demo-base", {"served_model_name": None}, "use models/demo-base"),
        ("demo", {"enable_lora": False}, "set --enable-lora --lora-modules NAME=PATH"),
    ],
)
def test_a_base_that_cannot_serve_is_refused(
    option: str, plan: dict[str, Any], name: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadOption, match=f"{option}='{name}' is invalid: .*{said}"):
        check(plan | {option: name}, **more)


def test_the_base_of_pairs_behind_a_url_is_that_servers_to_know() -> None:
    check({"pairs": 0.1, "pairs_base": "other", "pairs_url": "http://replica:8000/v1"})


# What CPUs need.


def on_cpu(**set_: Any) -> argparse.Namespace:
    flags = {
        "enable_chunked_prefill": None,
        "block_size": None,
        "enable_lora": False,
        "max_loras": 1,
        "lora_modules": None,
        "enforce_eager": False,
        "distributed_executor_backend": None,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
    }
    args = argparse.Namespace(**(flags | set_))
    _set_cpu_defaults(args)
    return args


def test_on_cpus_trials_share_blocks_and_prompts_are_prefilled_whole() -> None:
    args = on_cpu()
    assert (args.enable_chunked_prefill, args.block_size) == (False, 32)


def test_what_was_asked_for_stays() -> None:
    args = on_cpu(enable_chunked_prefill=True, block_size=128)
    assert (args.enable_chunked_prefill, args.block_size) == (True, 128)


def test_on_cpus_a_single_worker_computes_in_its_schedulers_process() -> None:
    assert on_cpu().distributed_executor_backend is UniProcExecutor
    assert on_cpu(distributed_executor_backend="mp").distributed_executor_backend == "mp"
    for ranks in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        assert on_cpu(**{ranks: 2}).distributed_executor_backend is None


def test_on_cpus_one_slot_more_than_adapters_stays_empty() -> None:
    adapters = [object(), object()]
    assert on_cpu(enable_lora=True, lora_modules=adapters).max_loras == 3
