"""A table of cases shared by the tests of counting, streaming and the controller."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_core import DEFAULT_MARKERS, LEXICONS, ExitReason, ExitSettings
from stepgrpo_core.policies import Answer, Distribution, InducedAnswer, Reply

CHINESE = LEXICONS["chinese"]
REFLECTIVE = LEXICONS["reflective"]
DONE = r"^Done\.$"


@dataclass(frozen=True)
class StepCase:
    text: str
    steps: int
    markers: tuple[str, ...] = DEFAULT_MARKERS


STEP_CASES = [
    StepCase("", 1),
    StepCase("no marker at all", 1),
    StepCase("Wait", 2),
    StepCase("Wait, is 5 right? Wait. Alternatively, no.", 4),
    StepCase("Waiting for Waiters", 1),
    StepCase("await Await aWait", 1),
    StepCase("wait, lower case is no marker", 1),
    StepCase("WaitWait", 1),
    StepCase("Wait,Wait", 3),
    StepCase("done.Wait,so", 2),
    StepCase("Wait2 Wait_ 2Wait _Wait", 1),
    StepCase('Wait\'s (Wait) "Wait"', 4),
    StepCase("Wait\u0301 is another word", 1),
    StepCase("Wait等等 Wait，再来", 3),
    StepCase("é Wait ö\nWait\n", 3),
    StepCase("ÉWait Waité", 1),
    StepCase("Wai", 1),
    StepCase("But wait, and Wait, But waiting", 3, REFLECTIVE),
    StepCase("Let me check. Let me checkmate. Let me che", 2, REFLECTIVE),
    StepCase("Hmm, Hmmm, HmmHmm", 2, REFLECTIVE),
    StepCase("先算。等等，不对。让我再检查一下。", 4, CHINESE),
    StepCase("等等等等", 3, CHINESE),
    StepCase("Wait a bit, Wait", 3, ("Wait", "Wait a", "a bit")),
    StepCase("Wait a second Wait a", 3, ("Wait", "Wait a second")),
    StepCase("ab abc abcd b", 4, ("ab", "abc", "b")),
    StepCase("\U0001f914 Wait \U0001f914", 2),
]


@dataclass(frozen=True)
class ExitCase:
    """A case: thinking with one word per token, and the position at which a policy ends it."""

    settings: ExitSettings
    words: Sequence[str]
    """Words after ``<think>``."""
    kept: int | None
    """Number of `words` that are kept; None without an exit."""
    reason: ExitReason
    answers: Sequence[Answer | None] = ()
    """Answers of the probes in order; the last one repeats."""
    max_tokens: int = 400


def _settings(policy: str, **fields: object) -> ExitSettings:
    plain = {"min_interval": 0, "answer_reserve": 0, "max_probes": 20, "entropy_alpha": 1.0}
    return ExitSettings(policy=policy, **(plain | fields))  # type: ignore[arg-type]


def _trial(probability: float, text: str = "{5}</think>") -> InducedAnswer:
    """Return a trial of two tokens; 2 is ``</think>`` and 8 the text before it."""
    return InducedAnswer((8, 2), (0.0, -(1 - probability)), ended=True, text=text)


_NEAR, _FAR = Distribution((-0.1, -0.5), -0.5), Distribution((-0.1, -5.0), -5.0)
_STEPS = ["a", " b", " Wait", " c", "\n", " Wait", ",", " d", "\n", "e"]
_PARAGRAPHS = ["a", "\n\n", "b", "\n\n", "c", "\n\n", "d", "\n\n", "e"]
_LOOP = [" So", " the", " sum", " is", " 55", "."]
_LINES = ["x", "\n"] * 30
_CYCLE = [f" y{n}" for n in range(70)]

EXIT_CASES = {
    "none": ExitCase(_settings("none"), _STEPS, None, ExitReason.NATURAL),
    "confidence": ExitCase(
        _settings("confidence"), _STEPS, 5, ExitReason.CONFIDENT, [_trial(0.5), _trial(0.99)]
    ),
    "sufficiency": ExitCase(
        _settings("sufficiency"), _STEPS, 2, ExitReason.SUFFICIENT, [Reply("100")]
    ),
    "sufficiency, 64 tokens apart": ExitCase(
        _settings("sufficiency"), _STEPS, None, ExitReason.NATURAL, [Reply("9"), Reply("100")]
    ),
    "verifier": ExitCase(
        _settings("verifier"),
        _PARAGRAPHS,
        4,
        ExitReason.VERIFIED,
        [Reply("no", (("no", -0.1),)), Reply("yes", (("yes", -0.1), ("no", -2.5)))],
    ),
    "consistency": ExitCase(
        _settings("consistency", consistency="max"),
        ["x"] * 80,
        64,
        ExitReason.CONSISTENT,
        [_trial(0.9)],
    ),
    "give_up": ExitCase(
        _settings("give_up", give_up_tokens=4), _STEPS, 5, ExitReason.GAVE_UP, [_trial(0.1)]
    ),
    "give_up, sure enough": ExitCase(
        _settings("give_up", give_up_tokens=4), _STEPS, None, ExitReason.NATURAL, [_trial(0.9)]
    ),
    "give_up, not calibrated": ExitCase(_settings("give_up"), _STEPS, None, ExitReason.NATURAL),
    "margin": ExitCase(
        _settings("margin"), [*_LOOP, *_LOOP, " So"], 12, ExitReason.MARGIN, [_FAR, _NEAR]
    ),
    "entropy": ExitCase(_settings("entropy"), _PARAGRAPHS, 8, ExitReason.ENTROPY, [_NEAR]),
    "budget, at a line end": ExitCase(
        _settings("budget", budget_tokens=21), _LINES, 22, ExitReason.BUDGET
    ),
    "budget, 10 % later": ExitCase(
        _settings("budget", budget_tokens=21), ["x"] * 60, 23, ExitReason.BUDGET
    ),
    "budget, never into a character": ExitCase(
        _settings("budget", budget_tokens=21), ["x"] * 22 + ["", "é", "x"], 22, ExitReason.BUDGET
    ),
    "budget of steps": ExitCase(_settings("budget", max_steps=2), _STEPS, 5, ExitReason.BUDGET),
    "budget, from the limit": ExitCase(
        _settings("budget", answer_reserve=5), ["x"] * 90, 50, ExitReason.BUDGET, max_tokens=60
    ),
    "budget, below the limit": ExitCase(_settings("budget"), ["x"] * 9, None, ExitReason.NATURAL),
    "pattern": ExitCase(
        _settings("pattern", pattern=DONE),
        ["Not", " Done.", "\n", "Done", ".", " x"],
        5,
        ExitReason.PATTERN,
    ),
    "pattern, after min_tokens": ExitCase(
        _settings("pattern", pattern=DONE, min_tokens=7),
        ["Done.", "\n", "a", "b", "c", "d", "e", "f", "\n", "g"],
        9,
        ExitReason.PATTERN,
    ),
    "repetition": ExitCase(
        _settings("repetition"), [*_LOOP, *_LOOP, *_LOOP, " So"], 18, ExitReason.REPETITION
    ),
    "repetition, a cycle without a sentence end": ExitCase(
        _settings("repetition"), ["a", " b", " c"] * 60, 128, ExitReason.REPETITION
    ),
    "repetition, a cycle after other text": ExitCase(
        _settings("repetition"),
        [*(f" x{n}" for n in range(40)), *_CYCLE * 4],
        256,
        ExitReason.REPETITION,
    ),
    "first to fire: the budget": ExitCase(
        _settings("confidence+budget+repetition", budget_tokens=4),
        _STEPS,
        4,
        ExitReason.BUDGET,
        [_trial(0.5)],
    ),
    "first to fire: the trial": ExitCase(
        _settings("confidence+budget+repetition", budget_tokens=4),
        _STEPS,
        2,
        ExitReason.CONFIDENT,
        [_trial(0.99)],
    ),
    "first to fire: the loop": ExitCase(
        _settings("confidence+budget+repetition", budget_tokens=40),
        [*_LOOP, *_LOOP, *_LOOP, " Wait", ",", "x"],
        18,
        ExitReason.REPETITION,
        [_trial(0.99)],
    ),
    "failed probes": ExitCase(_settings("confidence"), _STEPS, None, ExitReason.NATURAL, [None]),
    "no answer fits": ExitCase(
        _settings("confidence+repetition", answer_reserve=395),
        _STEPS,
        None,
        ExitReason.NATURAL,
        [_trial(0.99)],
    ),
    "the end in the thinking": ExitCase(
        _settings("confidence"), ["a", " b", ""], 2, ExitReason.EOS_IN_THINKING
    ),
}
"""Cases by name; one table for the controller and for rollouts."""
