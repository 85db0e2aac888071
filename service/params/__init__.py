"""Request parameters of all ecosystems, resolved to one exit policy.

`table` lists the parameters. `body` reads them from a request's body and rejects contradictions and
misplaced keys. `effective` overlays them on the server's defaults: ``vllm_xargs`` takes precedence
over an explicit budget, that over an effort, that over the defaults. An invalid parameter raises
`BadParameter`; none is ignored.
"""

from service.params.body import Template, read_body, to_vllm_body, wants_events
from service.params.effective import Effective, effective_settings
from service.params.effort import EFFORT
from service.params.table import EVENTS, FOREIGN, PARAMETERS, Parameter
from service.records.requested import BadParameter, Requested, ThinkingRequest

__all__ = [
    "EFFORT",
    "EVENTS",
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
    "wants_events",
]
