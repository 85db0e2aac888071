"""Same answers for majority votes, other families' thinking, and graders of the user's own."""

from training.config.schema import GradingConfig
from training.grading import FunctionGrader, Grader, grader_of

START, END = "<seed:think>", "</seed:think>"


def test_answers_vote_for_the_first_that_is_the_same() -> None:
    boxes = ["\\frac12", "3", "0.5", "\\sqrt{8}", "2\\sqrt{2}", "3.0", "7"]
    texts = [f"</think>\\boxed{{{each}}}" for each in boxes] + ["</think>none", "<think>\\boxed{3}"]
    with Grader(seconds=60) as grader:
        verdicts = grader.grade(texts, ["0.5"] * len(texts))
        assert [each.answer for each in verdicts] == [*boxes, None, None]
        assert grader.votes([verdicts, verdicts[1:2]]) == [
            [0, 1, 0, 3, 3, 1, 6, None, None],
            [0],
        ]
        many = [*map(str, range(8)), "\\sqrt{8}", "2\\sqrt{2}", "7.0"]
        verdicts = grader.grade([f"</think>\\boxed{{{each}}}" for each in many], ["77"] * 11)
        assert grader.votes([verdicts]) == [[*range(10), 7]]  # too many for mathematics
        lost = grader.grade(texts[:2], ["", ""])
        assert grader.votes([lost]) == [[None, None]]  # unscored: nobody knows


def test_thinking_ends_as_the_family_writes_it() -> None:
    texts = [f"{START}\\boxed{{1}}{END}\\boxed{{2}}", f"{START}\\boxed{{2}}", "\\boxed{2}"]
    with Grader(start=START, end=END) as grader:
        assert [each.correct for each in grader.grade(texts, ["2"] * 3)] == [True, False, True]
        (open_,) = grader.grade(["\\boxed{2}"], ["2"], thinking_open=True)
        assert open_.reason == "unclosed thinking"


def score(answer: str, gold: str) -> bool | None:
    if "?" in answer:
        return None
    if "!" in answer:
        raise KeyError(answer)
    return answer.strip().endswith(gold)


def test_a_function_grades_the_text_after_the_thinking() -> None:
    grader = grader_of(GradingConfig(grader=f"{__name__}:score"), START, END)
    texts = ["\nIt is\nRome", "\\boxed{Rome} or Paris", "?", "!", ""]
    verdicts = grader.grade([f"Rome{END}{each}" for each in texts], ["Rome"] * 5)
    assert [each.correct for each in verdicts] == [True, False, None, None, False]
    assert [each.reason for each in verdicts][2:4] == ["undecided", "error: KeyError"]
    assert [each.answer for each in verdicts] == ["Rome", "Rome", "?", "!", None]
    assert grader.votes([verdicts]) == [[0, 1, None, None, None]]
    unclosed = grader.grade([f"{START}Rome"], ["Rome"])
    assert (unclosed[0].correct, unclosed[0].formatted) == (False, False)
    assert isinstance(grader, FunctionGrader)
    assert grader.unscored == {"undecided": 1, "error: KeyError": 1}
    assert isinstance(grader_of(GradingConfig(), START, END), Grader)


def shares(answer: str, gold: str) -> float:
    return 0.5 if answer == gold else 0.0


def test_a_share_of_the_points_is_no_verdict() -> None:
    """0.5 is neither right nor wrong; counted as right it would pay for half an answer."""
    grader = grader_of(GradingConfig(grader=f"{__name__}:shares"), START, END)
    half, nothing = grader.grade(["Rome", "Paris"], ["Rome", "Rome"])
    assert (half.correct, half.reason) == (None, "error: ValueError")
    assert nothing.correct is False
