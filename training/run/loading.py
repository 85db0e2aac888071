"""Loading of a run's model, tokenizer, adapter settings and rows from its configuration."""

from typing import Any

from peft import LoraConfig

from training.config.schema import LoraSettings, RunConfig, prompt_template
from training.data.dataset import DataReport, Row, load_rows
from training.run.models import check_context, check_model, tokenizer_of
from training.run.processes import on_main

__all__ = ["load_data", "load_tokenizer", "lora_of", "model_of"]


def load_tokenizer(config: RunConfig) -> Any:
    """Return the model's tokenizer; raises InvalidSetting."""
    model = config.model
    return tokenizer_of(
        model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
    )


def model_of(config: RunConfig, longest: int | None) -> Any:
    """Return the model's configuration; raises InvalidSetting if the model is missing or too short.

    `longest` is the number of positions that the run needs.
    """
    model = config.model
    found = check_model(
        model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    if longest is not None:
        check_context(found, longest, "trl.vllm_max_model_length")
    return found


def load_data(config: RunConfig, tokenizer: Any) -> tuple[list[Row], DataReport]:
    """Return the training rows and the report; the main process reads them and prints it."""
    template = prompt_template(config)

    def read() -> tuple[list[Row], DataReport]:
        rows, report = load_rows(
            config.data, lambda prompt: len(template.render(tokenizer, prompt))
        )
        print(*report.lines(), sep="\n", flush=True)
        return rows, report

    return on_main(read)


def lora_of(settings: LoraSettings | None) -> LoraConfig | None:
    """Return the settings as PEFT's LoraConfig; None trains all weights."""
    if settings is None:
        return None
    modules = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
