"""One table for several tests: the same texts drive counting, streaming and the controller."""

from dataclasses import dataclass

from stepgrpo_core import DEFAULT_MARKERS, LEXICONS

CHINESE = LEXICONS["chinese"]
REFLECTIVE = LEXICONS["reflective"]


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
