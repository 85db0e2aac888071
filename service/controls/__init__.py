"""Request parameters of all ecosystems to one effective exit policy.

`parameters` is the table: what each parameter sets, and how its value is read. `body` reads a
request's body by it, and refuses what contradicts itself or stands in a wrong place. `effective`
lays what was asked over the server's defaults: ``vllm_xargs`` before an explicit budget, before
an effort, before the server's own. What cannot be honoured is a `BadParameter`, never ignored.
"""

from service.controls.body import Template, carry, read_body
from service.controls.effective import Effective, effective_settings
from service.controls.effort import EFFORT
from service.controls.parameters import (
    FOREIGN,
    PARAMETERS,
    Asked,
    BadParameter,
    Parameter,
    Wish,
)

__all__ = [
    "EFFORT",
    "FOREIGN",
    "PARAMETERS",
    "Asked",
    "BadParameter",
    "Effective",
    "Parameter",
    "Template",
    "Wish",
    "carry",
    "effective_settings",
    "read_body",
]
