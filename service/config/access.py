"""The operator's settings of access: flags, or variables that begin with STEPGRPO_SERVE_."""

import argparse
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.access.keys import BadKeys, KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Rules
from service.config.layers import add_option_flags, options_of, resolve
from stepgrpo_core import InvalidSetting

__all__ = ["ACCESS", "AccessSettings", "add_access_flags", "rules_of"]

PREFIX = "STEPGRPO_SERVE_"
_KEY_OF_VLLM = "VLLM_API_KEY"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Access settings: API keys and limits of requests. Raises InvalidSetting."""

    api_key_file: Path | None = None
    """File of API keys, one per line, `name: key` or `key`; read again when it changes. Every route
    except /health, /ready, /ping and the page's files then needs a key, as with --api-key."""
    key_concurrency: int | None = None
    """Sequences (n for each prompt) that an API key may run at once; more get 429. None means no
    limit."""
    key_rate: float | None = None
    """Requests per minute, on average, that an API key may send; more get 429. None means no
    limit."""
    tenant_isolation: bool = True
    """Give each API key a prefix cache of its own, so that no client can tell from response times
    what others ask; it changes nothing on a server without keys."""
    max_body_bytes: int = 2 * 1024 * 1024
    """Largest request body in bytes; a larger one gets 413."""
    open_metrics: bool = False
    """Serve /metrics without an API key."""
    page: bool = True
    """Serve the page at /, which anyone may load; what it shows comes from routes that need an API
    key where there are keys."""
    metrics_port: int | None = None
    """Port that serves /metrics over plain HTTP and without an API key, in place of the main port.
    None means the main port."""
    metrics_host: str | None = None
    """Address of the metrics port. None means the one of --host."""

    def __post_init__(self) -> None:
        for name in ("key_concurrency", "key_rate", "max_body_bytes", "metrics_port"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidSetting(name, value, "use a number above 0")
        if self.metrics_port is None and self.metrics_host is not None:
            raise InvalidSetting("metrics_host", self.metrics_host, "set metrics_port as well")
        if self.metrics_port is not None and self.metrics_port > 65_535:
            raise InvalidSetting("metrics_port", self.metrics_port, "use a port, up to 65535")

    def metrics_at(self, host: str) -> tuple[str, int] | None:
        """Return address and port of the metrics on a server at `host`; None for its own port."""
        if self.metrics_port is None:
            return None
        return host if self.metrics_host is None else self.metrics_host, self.metrics_port


ACCESS = options_of([AccessSettings], "--", PREFIX)
"""Every option by name."""


def add_access_flags(parser: Any) -> None:
    """Add the flags of all options."""
    group = parser.add_argument_group("AccessConfig", "Who may send requests.")
    add_option_flags(group, ACCESS)


def rules_of(args: argparse.Namespace, environment: MutableMapping[str, str]) -> Rules:
    """Return the access rules of a server; raises BadOption.

    Removes the API keys from `args` and the environment, so that neither logs nor the processes of
    the engine show them.
    """
    resolved = resolve(ACCESS, args, environment, prefix=PREFIX)
    settings = resolved.build(AccessSettings)
    fixed = args.api_key or [environment.get(_KEY_OF_VLLM, "")]
    args.api_key = None  # vLLM's own check does not know all keys or all routes
    environment.pop(_KEY_OF_VLLM, None)
    try:
        keys = KeyRing(filter(None, fixed), settings.api_key_file)
    except (OSError, BadKeys) as error:
        why = str(error.strerror if isinstance(error, OSError) else error)
        raise resolved.refusal("api_key_file", str(settings.api_key_file), why) from None
    for name in ("key_concurrency", "key_rate"):
        if getattr(settings, name) is not None and not keys.required:
            remedy = "there are no API keys: set --api-key-file"
            raise resolved.refusal(name, getattr(settings, name), remedy)
    return Rules(
        keys,
        KeyLimits(settings.key_concurrency, settings.key_rate),
        settings.max_body_bytes,
        open_metrics=settings.open_metrics,
        metrics_at=settings.metrics_at(args.host or ""),
        isolates=keys.required and settings.tenant_isolation,
        cors=bool(args.allowed_origins),
        page=settings.page,
    )
