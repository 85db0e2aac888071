"""Strata of the whole wrapper: what its requests are entered under."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.serving.scripted_engine import ScriptedClient
from benchmarks.serving.wrapper import Script, consume, make_script, requested
from service.engine.client import EarlyExitEngine
from service.params.limits import ProbeLimits
from service.records.metrics import Metrics
from service.records.sequence import RequestContext, current_request
from service.savings.estimates import StratumSummary
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.report import read_estimates
from service.savings.state.contents import stratum_of
from service.savings.state.store import SumStore
from stepgrpo_core import ExitSettings

REQUESTS = 12


class Client(ScriptedClient):
    """Also asked what it can do."""

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ()

    @property
    def model_config(self) -> Any:
        return SimpleNamespace(
            served_model_name="scripted", max_model_len=4096, is_encoder_decoder=False
        )


async def serve(script: Script, settings: ExitSettings, share: float, state: Path) -> None:
    """Some conversations."""
    client = Client(script.tokenizer, script.ids, script.texts, script.trial)
    savings = SavingsMeasurement(
        Plan(holdout=share, state=state), SumStore(state), {None: "weights"}
    )
    engine = EarlyExitEngine(
        client,
        settings,
        metrics=Metrics(CollectorRegistry()),
        limits=ProbeLimits(probe_load=1.0),
        savings=savings,
    )
    await engine.warm_up()
    for number in range(REQUESTS):
        current_request.set(RequestContext(conversations=[str(number).encode()]))
        await consume(requested(engine, script, number))
    await client.close()
    await savings.stop()
    await asyncio.to_thread(savings.close)


def test_requests_are_entered_under_the_settings_that_served_them(tmp_path: Path) -> None:
    script, state = make_script(60), tmp_path / "sums.sqlite"
    settings = ExitSettings(policy="confidence", threshold=0.9)
    for changed, share in ((settings, 0.5), (ExitSettings(policy="confidence"), 0.5)):
        asyncio.run(serve(script, changed, share, state))
    asyncio.run(serve(script, settings, 0.2, state))
    store = SumStore(state)
    (row,) = read_estimates(store)
    strata = {stratum_of(key.group) for key in store.read("holdout/")}
    facts = [each.facts for each in store.strata().values()]
    store.close()
    assert (len(strata), 0 in strata) == (3, False)
    assert row.requests + row.compared == 3 * REQUESTS
    assert [_counted(part) for part in row.strata] == [REQUESTS] * 3
    told = [(each.facts["holdout"], each.facts["threshold"]) for each in row.strata]
    assert told == [(0.5, 0.9), (0.5, 0.95), (0.2, 0.9)]
    assert {each["weights"] for each in facts} == {"weights"}
    # The texts of the model's family, which the tokenizer told.
    assert all("</think>" in each["closing_text"] for each in facts)


def _counted(part: StratumSummary) -> int:
    return part.requests + part.compared
