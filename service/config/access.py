"""The operator's settings of access: flags, or variables that begin with STEPGRPO_SERVE_."""

import argparse
import dataclasses
import typing
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.access.keys import BadKeys, KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Rules
from service.config.layers import Option, Resolved, reader_of, resolve

__all__ = ["ACCESS", "AccessSettings", "add_access_flags", "read_access", "rules_of"]

PREFIX = "STEPGRPO_SERVE_"
_KEY_OF_VLLM = "VLLM_API_KEY"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """What an operator says of access."""

    api_key_file: Path | None = None
    """File of API keys, one per line, `name: key` or `key`; read again when it changes."""
    key_concurrency: int | None = None
    """Sequences (n for each prompt) that an API key may run at once; more get 429."""
    key_rate: float | None = None
    """Requests that an API key may send per minute, on average; more get 429."""
    tenant_isolation: bool = True
    """API keys share no prefix cache, so that how long an answer takes tells none what others ask;
    without keys there are no tenants."""
    max_body_bytes: int = 2 * 1024 * 1024
    """Bytes of a request's body, at most; more get 413."""
    open_metrics: bool = False
    """`/metrics` answers without an API key."""
    metrics_port: int | None = None
    """Port of `/metrics`, over plain HTTP and without a key; it is then on no other."""
    metrics_host: str | None = None
    """Address of that port; None: that of `--host`."""


def _options() -> dict[str, Option]:
    hints = typing.get_type_hints(AccessSettings)
    readers = {Path | None: _path}
    return {
        field.name: Option(
            field.name,
            readers.get(hints[field.name]) or reader_of(hints[field.name]),
            _HELP[field.name],
            hints[field.name] is bool,
            lead="--",
            prefix=PREFIX,
        )
        for field in dataclasses.fields(AccessSettings)
    }


def _path(value: Any) -> Path:
    return Path(value)


_HELP = {
    "api_key_file": "File of API keys, one per line; read again when it changes. All but /health, "
    "/ready and /ping then needs one, as with --api-key.",
    "key_concurrency": "Sequences that an API key may run at once. Default: no limit.",
    "key_rate": "Requests that an API key may send per minute. Default: no limit.",
    "tenant_isolation": "API keys share no prefix cache. Default: on.",
    "max_body_bytes": "Bytes of a request's body, at most. Default: 2097152.",
    "open_metrics": "/metrics answers without an API key.",
    "metrics_port": "Port of /metrics, without an API key; it is then on no other.",
    "metrics_host": "Address of that port. Default: that of --host.",
}

ACCESS = _options()
"""Every option by name: the fields of `AccessSettings`."""


def add_access_flags(parser: Any) -> None:
    """The flags of all options; None where one is not given."""
    group = parser.add_argument_group("AccessConfig", "Who may ask for what.")
    for option in ACCESS.values():
        if option.switch:
            action = argparse.BooleanOptionalAction
            group.add_argument(option.flag, action=action, default=None, help=option.help)
        else:
            group.add_argument(option.flag, metavar="VALUE", default=None, help=option.help)


def read_access(
    args: argparse.Namespace, environment: MutableMapping[str, str]
) -> tuple[AccessSettings, Resolved]:
    """The settings from flags before the environment; raises BadOption."""
    flags = {name: getattr(args, name) for name in ACCESS}
    resolved = resolve(ACCESS, flags, environment, ("file", {}), prefix=PREFIX)
    settings = AccessSettings(**resolved.values)
    for name in ("key_concurrency", "key_rate", "max_body_bytes", "metrics_port"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise resolved.refusal(name, value, "use a number above 0")
    return settings, resolved


def rules_of(args: argparse.Namespace, environment: MutableMapping[str, str]) -> Rules:
    """The rules of a server. Its keys leave `args` and the environment, where logs and the engine's
    processes would find them; raises BadOption."""
    settings, resolved = read_access(args, environment)
    fixed = args.api_key or [environment.get(_KEY_OF_VLLM, "")]
    args.api_key = None  # vLLM's own check knows neither all keys nor all routes
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
        metrics_at=_metrics_at(settings, resolved, args.host or ""),
        isolates=keys.required and settings.tenant_isolation,
        cors=bool(args.allowed_origins),
    )


def _metrics_at(settings: AccessSettings, resolved: Resolved, host: str) -> tuple[str, int] | None:
    own, port = settings.metrics_host, settings.metrics_port
    if port is None:
        if own is not None:
            raise resolved.refusal("metrics_host", own, "set metrics_port as well")
        return None
    if port > 65_535:
        raise resolved.refusal("metrics_port", port, "use a port, up to 65535")
    return host if own is None else own, port
