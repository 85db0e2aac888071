"""Request parameters of all ecosystems to one effective exit policy.

`parameters` is the table: what each parameter sets, and how its value is read. `body` reads a
request's body by it, and refuses what contradicts itself or stands in a wrong place. `effective`
lays what was asked over the server's defaults: ``vllm_xargs`` before an explicit budget, before
an effort, before the server's own. What cannot be honoured is a `BadParameter`, never ignored.
"""

from service.params.body import Template, read_body, to_vllm_body
from service.params.effective import Effective, effective_settings
from service.params.effort import EFFORT
from service.params.table import FOREIGN, PARAMETERS, Parameter
from service.records.requested import BadParameter, Requested, ThinkingRequest

__all__ = [
    "EFFORT",
    "FOREIGN",
    "PARAMETERS",
    "BadParameter",
    "Effective",
    "Parameter",
    "Requested",
    "Template",
    "ThinkingRequest",
    "effective_settings",
    "read_body",
    "to_vllm_body",
]
