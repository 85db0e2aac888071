"""The symbols of vLLM that the server uses, why, and where each version has them.

A test resolves every symbol, so an incompatible version fails there first, with the reason.
"""

import importlib
from typing import Any

__all__ = ["MOVED", "UPSTREAM", "located", "places"]

_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
_ARGS = "vllm.entrypoints.launchers.cli_args"
_OUTPUTS = "vllm.outputs"

UPSTREAM: dict[str, str] = {
    "vllm.engine.arg_utils.AsyncEngineArgs.create_engine_config": "chooses how the engine starts",
    "vllm.v1.engine.async_llm.AsyncLLM.from_vllm_config": "starts the engine; we wrap it",
    "vllm.v1.engine.async_llm.AsyncLLM.reset_mm_cache": "after the start, as vLLM's server does",
    "vllm.usage.usage_lib.UsageContext.OPENAI_API_SERVER": "the context that vLLM's server reports",
    "vllm.config.VllmConfig": "whether the engine's process can be forked",
    "vllm.v1.executor.abstract.Executor.get_class": "the same",
    "vllm.v1.worker.cpu_worker": "imported before the engine is forked",
    "vllm.v1.executor.uniproc_executor.UniProcExecutor": "on CPUs, instead of a worker process",
    "vllm.utils.ompmultiprocessing.OMPProcessManager": "the threads and cores of that worker",
    f"{_ENTRY}.build_and_serve": "builds the application around an engine client",
    "vllm.entrypoints.chat_utils.load_chat_template": "whether --chat-template disables thinking",
    "vllm.entrypoints.anthropic.api_router.logger": "logs each request it refuses as an error",
    "vllm.entrypoints.launchers.launcher.setup_server": "binds the port before the model loads",
    "vllm.entrypoints.launchers.launcher.NoSignalServer": "metrics on a separate port",
    "vllm.v1.metrics.prometheus.get_prometheus_registry": "the same",
    f"{_ARGS}.make_arg_parser": "every `vllm serve` flag",
    f"{_ARGS}.validate_parsed_serve_args": "checks before loading",
    "vllm.entrypoints.serve.utils.api_utils.cli_env_setup": "spawned engine processes",
    "vllm.platforms.current_platform": "CPUs need other defaults",
    "vllm.logger.configure_logging_from_args": "log flags",
    "vllm.utils.argparse_utils.FlexibleArgumentParser": "flags from YAML and JSON",
    "vllm.engine.protocol.EngineClient.generate": "what the wrapper replaces",
    "vllm.engine.protocol.EngineClient.encode": "its prompts get the API key's salt, too",
    "vllm.engine.protocol.EngineClient.check_admission": "the wrapper owns admission",
    "vllm.engine.protocol.EngineClient.shutdown": "the wrapper drains first",
    "vllm.engine.protocol.EngineClient.dead_error": "a new one for each request",
    "vllm.engine.protocol.EngineClient.errored": "the engine's process has ended",
    "vllm.engine.protocol.EngineClient.check_health": "liveness, also at the end of a drain",
    "vllm.v1.engine.core.EngineCoreProc.run_engine_core": "replaced: ends with the server",
    "vllm.v1.executor.multiproc_executor.WorkerProc.worker_main": "replaced: likewise",
    "vllm.v1.engine.coordinator.DPCoordinatorProc.run_coordinator": "replaced: likewise",
    "vllm.entrypoints.openai.models.serving.OpenAIServingModels.show_available_models": "one model",
    "vllm.benchmarks.serve.add_cli_args": "stepgrpo-serve bench",
    "vllm.benchmarks.serve.main": "the same",
    "vllm.engine.protocol.EngineClient.abort": "ends main streams and probes",
    "vllm.config.model.ModelConfig.get_diff_sampling_param": "parameters that decide lengths",
    "vllm.exceptions.VLLMValidationError": "becomes HTTP 400 with the parameter's name",
    "vllm.exceptions.QueueOverflowError": "becomes HTTP 503",
    "vllm.exceptions.GracefulHTTPError": "the same, with our messages",
    "vllm.config.scheduler.SchedulerConfig.policy": "whether priorities count",
    "vllm.v1.sample.sampler.Sampler.forward": "replaced: requests of a batch keep their log-probs",
    "vllm.v1.sample.sampler.Sampler.gather_specific_token_logprobs": "the same",
    "vllm.v1.sample.metadata.SamplingMetadata": "the same",
    "vllm.v1.metrics.loggers.StatLoggerManager.record": "probes yield to waiting requests",
    "vllm.v1.metrics.stats.FinishedRequestStats.request_id": "probes are no requests of users",
    "vllm.v1.metrics.stats.SchedulerStats.num_waiting_reqs": "the same",
    "vllm.exceptions.MaxQueuedTokensError": "becomes HTTP 503",
    "vllm.v1.engine.exceptions.EngineDeadError": "what every request gets when the engine dies",
    "vllm.inputs.TokensPrompt": "the prompt of the token that is generated at startup",
    f"{_OUTPUTS}.RequestOutput.add": "merges deltas for responses that do not stream",
    "vllm.logprobs.Logprob": "a placeholder at injected tokens",
    "vllm.v1.metrics.stats.RequestStateStats.scheduled_ts": "when a request left the queue",
    "vllm.v1.metrics.stats.RequestStateStats.first_token_latency": "of responses not streamed",
    "vllm.config.observability.ObservabilityConfig.otlp_traces_endpoint": "whether to trace",
    "vllm.tracing.init_tracer": "sets up the OpenTelemetry tracer that we use",
    f"{_OUTPUTS}.CompletionOutput": "carries injected tokens",
    "vllm.reasoning.ReasoningParserManager.get_reasoning_parser": "reasoning and its markers",
    "vllm.reasoning.ReasoningParser.extract_reasoning_streaming": "the same",
    "vllm.reasoning.ReasoningParser.is_reasoning_end": "the same, after a prompt, in streams",
    "vllm.sampling_params.SamplingParams._all_stop_token_ids": "minus those of the answer",
    "vllm.sampling_params.SamplingParams.clone": "parameters of answers",
    "vllm.sampling_params.RequestOutputKind.DELTA": "streams come as deltas",
    "vllm.sampling_params.RequestOutputKind.FINAL_ONLY": "responses that do not stream",
    "vllm.sampling_params.RequestOutputKind.CUMULATIVE": "passes through",
}
"""The reason for each symbol, by its path in vLLM 0.31, the oldest version that works."""

MOVED: dict[str, tuple[str, str]] = {
    "vllm.entrypoints.chat_utils.load_chat_template": (
        "0.32",
        "vllm.renderers.chat_utils.load_chat_template",
    ),
    f"{_ARGS}.make_arg_parser": ("0.33", "vllm.entrypoints.common.cli_args.make_arg_parser"),
    f"{_ARGS}.validate_parsed_serve_args": (
        "0.33",
        "vllm.entrypoints.common.cli_args.validate_parsed_serve_args",
    ),
    "vllm.entrypoints.serve.utils.api_utils.cli_env_setup": (
        "0.33",
        "vllm.entrypoints.common.startup.cli_env_setup",
    ),
}
"""The version that moved a symbol, and its path since then."""


def places(path: str) -> list[str]:
    """Return the paths at which versions of vLLM have a symbol of `UPSTREAM`, newest first."""
    return [MOVED[path][1], path] if path in MOVED else [path]


def located(path: str) -> Any:
    """Return a function of `UPSTREAM` from where the installed vLLM has it. Raises ImportError."""
    for place in places(path):
        module, _, name = place.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"this version of vLLM has no {path}; use one that docs/versions.md lists")
