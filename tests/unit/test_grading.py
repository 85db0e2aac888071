"""Grading: equal forms, the strict rule, hostile answers, workers that die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from stepgrpo_core import InvalidSetting
from training.grading import Grader, Verdict

HANGS = r"9^{9^{9^{9}}}"
SECONDS = 5.0
SLACK = 25.0  # workers that start on a busy machine


def workers() -> set[BaseProcess]:
    return set(multiprocessing.active_children())


def kill_all(victims: set[BaseProcess]) -> None:
    for victim in victims:
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)


def boxed(answer: str) -> str:
    return rf"<think>some \boxed{{0}} thought</think>It is \boxed{{{answer}}}."


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(seconds=SECONDS, workers=2) as made:
        yield made


EQUAL = [
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", "0.5"),
    ("0.5", r"\frac12"),
    ("0.5", r"50\%"),
    ("1000", "1,000"),
    ("34", "034"),
    ("12", r"12\text{ cm}"),
    ("90", r"90^\circ"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("5", "x=5"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("(1,2.5]", r"(1, \frac{5}{2}]"),
    (r"(-\infty,1)\cup(2,3)", r"(2,3) \cup (-\infty, 1)"),
    ("1<x<2", "(1,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    ("$7$", "7.0"),
    (r"\(7\)", "7.0"),
]
DIFFERENT = [
    (r"\frac{1}{2}", "1/3"),
    ("0.5", "0.51"),
    ("1000", "1,001"),
    (r"2\sqrt{2}", r"\sqrt{7}"),
    ("x^2+2x+1", "(x-1)^2"),
    ("5", "x=6"),
    (r"\{1,2\}", r"\{1,3\}"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("(1,2]", "(1,2)"),
    ("(1,2)", "(2,1)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    ("5", r"5 \text{ or } 6"),
    ("5", ""),
    ("5", r"\frac{"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_values_are_correct_however_they_are_written(
    grader: Grader, gold: str, answer: str
) -> None:
    assert grader.grade([boxed(answer)], [gold]) == [Verdict(True, True, "equal")]


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_a_perturbed_answer_is_wrong(grader: Grader, gold: str, answer: str) -> None:
    assert [each.correct for each in grader.grade([boxed(answer)], [gold])] == [False]


def test_verdicts_come_in_order_and_equal_questions_agree(grader: Grader) -> None:
    golds = ["1/2", "3", "1/2", "4"]
    answers = ["0.5", "4.0", "0.5", "4"]
    verdicts = grader.grade([boxed(each) for each in answers], golds)
    assert [each.reason for each in verdicts] == ["equal", "different", "equal", "exact"]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (r"<think>a</think>\boxed{7}", Verdict(True, True, "exact")),
        (r"<think>a</think>\boxed{$7$ }", Verdict(True, True, "exact")),
        (r"\boxed{7}", Verdict(True, True, "exact")),
        (r"<think>a</think>\boxed{6} no, \boxed{7}", Verdict(True, True, "exact")),
        (r"<think>a</think>\boxed{\boxed{7}}", Verdict(True, True, "exact")),
        (r"<think>a</think>\boxed{7} or \boxed{8", Verdict(False, False, "no box")),
        (r"<think>\boxed{7}", Verdict(False, False, "unclosed thinking")),
        (r"<think>\boxed{7}</think>It is 7.", Verdict(False, False, "no box")),
        (r"<think>a</think>\boxed{7", Verdict(False, False, "no box")),
    ],
)
def test_what_needs_no_mathematics_starts_no_worker(completion: str, expected: Verdict) -> None:
    before = workers()
    with Grader() as lazy:
        assert lazy.grade([completion], ["7"]) == [expected]
        assert workers() <= before


def test_of_two_boxes_the_last_counts_and_they_make_no_set(grader: Grader) -> None:
    both = r"<think>a</think>\boxed{1} and \boxed{2}"
    verdicts = grader.grade([both, both], [r"\{1,2\}", "2"])
    assert [each.correct for each in verdicts] == [False, True]


def test_thinking_opened_by_the_prompt_must_close_too(grader: Grader) -> None:
    completion = r"\boxed{7}"
    verdicts = grader.grade([completion, completion + "</think>"], ["7"] * 2, thinking_open=True)
    assert [each.reason for each in verdicts] == ["unclosed thinking", "no box"]


@pytest.mark.parametrize("answer", ["B", "(B)", "b", r"\text{B}", r"\textbf{(B)}", "B."])
def test_a_letter_is_compared_as_a_letter(answer: str) -> None:
    before = workers()
    with Grader() as lazy:
        verdicts = lazy.grade([boxed(answer)] * 3, ["B", "(B)", "D"])
        assert [each.correct for each in verdicts] == [True, True, False]
        assert workers() <= before


@pytest.mark.parametrize("answer", ["AB", "B5", "2", "", r"A \text{ or } B"])
def test_a_letter_among_others_is_not_that_choice(answer: str) -> None:
    with Grader() as lazy:
        assert lazy.grade([boxed(answer)], ["B"]) == [Verdict(False, True, "different")]


@pytest.mark.parametrize(
    ("completion", "gold"),
    [
        ("<think>a</think>The answer is 0.5", r"\frac{1}{2}"),
        ("<think>a</think>First 3, so the final answer is $\\frac{1}{2}$.", "0.5"),
        ("<think>so the answer must be 12", "12"),
        (r"<think>a</think>\boxed{1} and \boxed{2}", r"\{1,2\}"),
        ("<think>a</think>I am sure. The answer is **(B)**.", "B"),
        (r"<think>a</think>Answer: \text{C}", "C"),
    ],
)
def test_the_lenient_column_reads_what_has_no_box(
    grader: Grader, completion: str, gold: str
) -> None:
    strict, lenient = (
        grader.grade([completion], [gold], lenient=lenient)[0] for lenient in (False, True)
    )
    assert (strict.correct, lenient.correct) == (False, True)
    assert strict.formatted == lenient.formatted


def test_lenient_is_never_stricter_and_still_knows_wrong_ones(grader: Grader) -> None:
    texts = [r"\boxed{1} \boxed{2}", "The answer is 3", r"\boxed{(C)}", "The answer is A."]
    verdicts = grader.grade(texts, ["2", "2", "C", "C"], lenient=True)
    assert [each.correct for each in verdicts] == [True, False, True, False]


@pytest.mark.parametrize("gold", ["", "$$", r"\frac{", "???"])
def test_a_gold_that_cannot_be_read_leaves_the_answer_unscored(grader: Grader, gold: str) -> None:
    assert grader.grade([boxed("3")], [gold]) == [Verdict(None, True, "gold unparsed")]


def test_an_error_inside_the_grader_is_unscored_and_named(grader: Grader) -> None:
    verdict = grader.grade([boxed("3")], [r"\frac{1}{0}"])[0]
    assert (verdict.correct, verdict.reason) == (None, "error: ValueError")


@pytest.mark.parametrize("pause", [0.0, 0.5], ids=["at once", "after the pool noticed"])
def test_idle_workers_that_were_killed_are_replaced(pause: float) -> None:
    others = workers()
    with Grader(workers=2) as made:
        made.grade([boxed("x+1")], ["1+x"])
        victims = workers() - others
        assert len(victims) == 3  # and the spare one
        kill_all(victims)
        time.sleep(pause)
        assert made.grade([boxed("y+1")], ["1+y"])[0].correct is True


def test_a_worker_killed_at_work_leaves_its_answer_unscored() -> None:
    others = workers()
    with Grader(seconds=60, workers=1) as patient:
        patient.grade([boxed("1+x")], ["x+1"])
        killer = threading.Timer(5.0, kill_all, (workers() - others,))
        killer.start()
        assert patient.grade([boxed(HANGS)], ["x+1"])[0].reason == "crashed"
        assert patient.grade([boxed("1+y")], ["y+1"])[0].correct is True


def test_grading_works_in_another_thread_and_from_several_at_once(grader: Grader) -> None:
    found: list[Verdict] = []
    threads = [
        threading.Thread(target=lambda: found.extend(grader.grade([boxed("x+1")], ["1+x"])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Verdict(True, True, "equal")] * 4


def test_closing_ends_the_workers_and_grading_may_resume() -> None:
    others = workers()
    one = Grader(workers=1)
    assert one.grade([boxed("x+1")], ["1+x"])[0].correct is True
    assert len(workers() - others) == 2  # with the spare one
    one.close()
    assert workers() <= others
    assert one.grade([boxed("y+1")], ["1+y"])[0].correct is True
    one.close()
    one.close()


def test_an_interrupt_ends_the_workers_in_the_middle_of_a_computation() -> None:
    others = workers()
    usual = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 3)
        with pytest.raises(KeyboardInterrupt):
            Grader(seconds=60, workers=1).grade([boxed(HANGS)], ["x+1"])
    finally:
        signal.signal(signal.SIGALRM, usual)
    assert workers() <= others


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_kernel_ends_a_worker_that_no_timer_can_interrupt() -> None:
    result = run_python(
        "import signal, stepgrpo_math as m\n"
        "def deaf():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])\n"
        "    while True: pass\n"
        "m.prepare_process()\n"
        "m.run_with_cpu_limit(0.2, deaf)"
    )
    assert result.returncode == -signal.SIGXCPU


def test_a_worker_cannot_fill_the_memory() -> None:
    result = run_python(
        "from stepgrpo_math import limits\nlimits.prepare_process()\n"
        "bytearray(2 * limits.MEMORY_BYTES)"
    )
    assert result.stderr.splitlines()[-1] == "MemoryError"


def test_importing_the_grader_loads_nothing_slow() -> None:
    slow = {"torch", "vllm", "sympy", "math_verify", "datasets", "transformers"}
    result = run_python(f"import sys, training.grading; print({slow!r} & set(sys.modules))")
    assert result.stdout.strip() == "set()"


def test_one_gold_per_completion() -> None:
    with pytest.raises(ValueError, match="2 completions and 1 golds"):
        Grader().grade(["a", "b"], ["1"])
    assert Grader().grade([], []) == []


@pytest.mark.parametrize("setting", [{"seconds": 0}, {"seconds": float("inf")}, {"workers": 0}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(setting))):
        Grader(**setting)
