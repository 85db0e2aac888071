"""The operator's settings of access: flags before the environment, and what a refusal names."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from service.access.keys import digest_of
from service.access.middleware import Rules
from service.config.access import ACCESS, AccessSettings, add_access_flags, rules_of
from service.config.layers import BadOption


def parse(*flags: str) -> argparse.Namespace:
    """As on the command line, where vLLM's parser has the flags that matter here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-key", nargs="*")
    parser.add_argument("--allowed-origins", nargs="*", default=[])
    parser.add_argument("--host")
    add_access_flags(parser)
    return parser.parse_args(flags)


def rules(*flags: str, environment: dict[str, str] | None = None) -> Rules:
    return rules_of(parse(*flags), environment if environment is not None else {})


def test_nothing_set_is_an_open_server_with_bounded_bodies() -> None:
    made = rules()
    assert not made.keys.required
    assert (made.limits.concurrency, made.limits.rate) == (None, None)
    assert made.max_body == 2 * 1024 * 1024
    assert not made.cors
    assert not made.open_metrics


def test_every_field_is_an_option() -> None:
    assert list(ACCESS) == [field.name for field in dataclasses.fields(AccessSettings)]


def test_flags_go_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a\n")
    environment = {
        "STEPGRPO_SERVE_API_KEY_FILE": str(tmp_path / "keys"),
        "STEPGRPO_SERVE_KEY_RATE": "1.5",
        "STEPGRPO_SERVE_KEY_CONCURRENCY": "2",
        "STEPGRPO_SERVE_OPEN_METRICS": "true",
        "STEPGRPO_SERVE_MAX_BODY_BYTES": "1000",
    }
    made = rules("--key-concurrency", "3", "--no-open-metrics", environment=environment)
    assert made.keys.contains(digest_of("a"))
    assert (made.limits.concurrency, made.limits.rate, made.max_body) == (3, 1.5, 1000)
    assert not made.open_metrics


@pytest.mark.parametrize("flag", [True, False])
def test_vllms_own_keys_are_taken_over_and_out_of_sight(flag: bool) -> None:
    args = parse(*(("--api-key", "a", "b") if flag else ()))
    environment = {"VLLM_API_KEY": "of the environment", "PATH": "/"}
    made = rules_of(args, environment)
    known = [made.keys.contains(digest_of(key)) for key in ("a", "b", "of the environment")]
    assert known == ([True, True, False] if flag else [False, False, True])
    assert args.api_key is None
    assert environment == {"PATH": "/"}


def test_an_empty_key_of_vllm_is_none() -> None:
    assert not rules("--api-key", "", environment={"VLLM_API_KEY": ""}).keys.required


def test_cors_is_open_where_an_origin_is_named() -> None:
    assert rules("--allowed-origins", "https://page.example").cors


@pytest.mark.parametrize(
    ("flags", "at"),
    [
        ([], None),
        (["--metrics-port", "9"], ("", 9)),
        (["--metrics-port", "9", "--host", "h"], ("h", 9)),
        (["--metrics-port", "9", "--host", "h", "--metrics-host", "m"], ("m", 9)),
    ],
)
def test_metrics_are_beside_the_server_unless_told_otherwise(flags: list[str], at: Any) -> None:
    assert rules(*flags).metrics_at == at


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (["--api-key-file", "/nowhere"], {}, "flag: --api-key-file='/nowhere' .*No such file"),
        ([], {"STEPGRPO_SERVE_API_KEY_FILE": "/"}, "environment: STEPGRPO_SERVE_API_KEY_FILE='/'"),
        (["--api-key-file", "EMPTY"], {}, "it holds no key: write one per line"),
        (["--key-rate", "5"], {}, "flag: --key-rate=5.0 .*there are no API keys"),
        (["--key-concurrency", "5"], {}, "--key-concurrency=5 .*set --api-key-file"),
        (["--key-rate", "0", "--api-key", "a"], {}, "--key-rate=0.0 .*above 0"),
        (["--key-concurrency", "-1", "--api-key", "a"], {}, "--key-concurrency=-1 .*above 0"),
        (["--key-rate", "nan", "--api-key", "a"], {}, "--key-rate='nan' .*use a number"),
        (["--metrics-host", "m"], {}, "--metrics-host='m' .*set metrics_port as well"),
        (["--metrics-port", "70000"], {}, "--metrics-port=70000 .*up to 65535"),
        (["--max-body-bytes", "2MB"], {}, "--max-body-bytes='2MB' .*whole number"),
        ([], {"STEPGRPO_SERVE_KEY_RAT": "5"}, "KEY_RAT='5' .*did you mean 'STEPGRPO_SERVE_KEY_RAT"),
        ([], {"STEPGRPO_SERVE_OPEN_METRICS": "perhaps"}, "use true or false"),
    ],
)
def test_refusals_are_one_line_with_source_key_value_and_remedy(
    tmp_path: Path, flags: list[str], environment: dict[str, str], message: Any
) -> None:
    (tmp_path / "keys").touch()
    flags = [flag.replace("EMPTY", str(tmp_path / "keys")) for flag in flags]
    with pytest.raises(BadOption, match=message) as caught:
        rules(*flags, environment=environment)
    assert "\n" not in str(caught.value)
