"""Sums of requests as a state file holds them."""

from service.savings.state.series import EXIT, ArmName, Contrast, holdout_series
from service.savings.state.store import Key, Sums
from stepgrpo_core.savings.estimators import ServedTokens

SIDES: tuple[tuple[ArmName, int, int], ...] = (("exited", 60, 5), ("held", 100, 0))


def sums(groups: int, policy: str = "confidence", compared: Contrast = "exit") -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for group in range(groups):
        for side, tokens, probes in SIDES:
            key = Key(holdout_series(side, "completion", compared), "demo", policy, group)
            found[key] = ServedTokens.one(tokens + group, 100)._asdict()
            engine = ServedTokens.one(tokens + group + probes, 100)._asdict()
            found[key._replace(series=holdout_series(side, "engine", compared))] = engine
    return found


def pairs(groups: int, series: str = EXIT) -> dict[Key, Sums]:
    """Return sums per group of two exits, one of them paired, and a request without an exit."""
    entry: Sums = {
        "requests": 2, "tokens": 100, "saved": 60, "cost": 10, "pairs": 1, "error": 5,
        "natural": 1, "natural_tokens": 80, "agreed": 1, "unmeasurable": 1,
    }  # fmt: skip
    return {Key(series, "demo", "confidence", group): entry for group in range(groups)}
