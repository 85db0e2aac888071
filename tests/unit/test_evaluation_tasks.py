"""Benchmarks: every source is read in its own columns, and its golds are graded as they should."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from stepgrpo_core import InvalidSetting
from training.config.layers import InvalidConfig
from training.data.sources import BadRow, Source
from training.demo.world import sample_problems
from training.evaluation.tasks import (
    TASKS,
    Draws,
    Question,
    Task,
    digest_of,
    draws_of,
    load_task,
    read_tasks,
    task_of,
)
from training.grading import Grader
from training.rollouts.batch import Sampling

# In each benchmark's own columns; written here, in the style of the originals.
ROWS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [
        {"question": "6 hens lay 2 eggs each. Eggs?", "answer": "6*2=<<6*2=12>>12\n#### 12"},
        {"question": "Twice 1,250 miles?", "answer": "2*1250=2500\n#### 2,500"},
        {"question": "5 less than 2?", "answer": "2-5=-3\n#### -3"},
    ],
    "math500": [
        {"problem": "Simplify $\\frac{6}{8}$.", "answer": "\\frac{3}{4}", "level": 1},
        {
            "problem": "Polar form of $(0,3)$?",
            "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
            "level": 2,
        },
        {"problem": "Who was fastest?", "answer": "\\text{Evelyn}", "level": 2},
        {"problem": "Factor $x^2-1$.", "answer": "(x-1)(x+1)", "level": 3},
        {"problem": "Solve $x^2 < 4$.", "answer": "(-2,2)", "level": 3},
        {"problem": "Give $\\sqrt{8}$.", "answer": "2\\sqrt{2}", "level": 1},
    ],
    "amc23": [
        {"id": 0, "question": "How many miles?", "answer": "27.0", "url": "u"},
        {"id": 1, "question": "What is $m+n$?", "answer": "265", "url": "u"},
    ],
    "aime24": [
        {"id": 60, "problem": "Find $n$.", "answer": "033", "solution": "s", "year": "2024"}
    ],
    "aime25": [{"problem": "Find the sum.", "answer": "70", "id": "0"}],
    "gpqa-diamond": [
        {
            "Question": f"Which energy, number {number}?",
            "Correct Answer": "10^-4 eV\n",
            "Incorrect Answer 1": "10^-8 eV",
            "Incorrect Answer 2": "10^-9 eV",
            "Incorrect Answer 3": "10^-11 eV",
        }
        for number in range(40)
    ],
    "demo": [{"prompt": "Compute 12+3. In \\boxed{}.", "answer": 15}],
}
EQUAL = {
    "2,500": "2500",
    "\\frac{3}{4}": "0.75",
    "\\left( 3, \\frac{\\pi}{2} \\right)": "(3, \\pi/2)",
    "\\text{Evelyn}": "Evelyn",
    "(x-1)(x+1)": "(x+1)(x-1)",
    "2\\sqrt{2}": "\\sqrt{8}",
    "27.0": "27",
    "033": "33",
}
"""Other spellings that mean the gold."""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def local(name: str, folder: Path, **options: Any) -> list[Question]:
    return load_task(name, data=jsonl(folder / f"{name}.jsonl", ROWS[name]), **options)


@pytest.mark.parametrize("name", TASKS)
def test_a_local_file_in_the_hubs_columns_gives_the_questions(tmp_path: Path, name: str) -> None:
    found = local(name, tmp_path)
    assert len(found) == len(ROWS[name])
    assert [each.id for each in found] == sorted(each.id for each in found)
    for each, row in zip(found, ROWS[name], strict=True):
        assert str(row[str(TASKS[name].source.prompt)]) in each.prompt
        assert each.prompt.count("\\boxed{}") == 1
        assert each.gold == each.gold.strip()


@pytest.mark.parametrize("name", TASKS)
def test_parquet_gives_the_same_questions(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.parquet"
    datasets.Dataset.from_list(ROWS[name]).to_parquet(str(path))
    assert load_task(name, data=str(path)) == local(name, tmp_path)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.source.hub])
def test_a_directory_laid_out_as_on_the_hub_is_read_by_configuration_and_split(
    tmp_path: Path, name: str
) -> None:
    source = TASKS[name].source
    folder = tmp_path / "set"
    (folder / "files").mkdir(parents=True)
    jsonl(folder / "files" / "wanted.jsonl", ROWS[name])
    jsonl(folder / "files" / "other.jsonl", ROWS[name][:1] * 2)
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        f"- config_name: {source.config or 'default'}\n  data_files:\n"
        f"  - split: {source.split}\n    path: files/wanted.jsonl\n"
        "  - split: another\n    path: files/other.jsonl\n"
        "- config_name: another\n  data_files:\n"
        f"  - split: {source.split}\n    path: files/other.jsonl\n---\n"
    )
    assert load_task(name, data=str(folder)) == local(name, tmp_path)


def test_the_golds_are_what_the_benchmarks_mean(tmp_path: Path) -> None:
    golds = {name: [each.gold for each in local(name, tmp_path)] for name in TASKS}
    assert golds["gsm8k"] == ["12", "2,500", "-3"]
    assert golds["math500"] == [row["answer"] for row in ROWS["math500"]]
    assert (golds["aime24"], golds["aime25"], golds["demo"]) == (["033"], ["70"], ["15"])


def test_every_gold_scores_itself_and_its_other_spellings_right_and_others_wrong(
    tmp_path: Path,
) -> None:
    golds = [each.gold for name in TASKS for each in local(name, tmp_path)[:6]]

    def verdicts(answers: list[str]) -> list[bool | None]:
        texts = [f"<think>So.</think>\nIt is \\boxed{{{each}}}." for each in answers]
        return [each.correct for each in grader.grade(texts, golds)]

    with Grader(seconds=60) as grader:
        assert verdicts(golds) == [True] * len(golds)
        assert verdicts([EQUAL.get(each, each) for each in golds]) == [True] * len(golds)
        perturbed = [{"A": "B"}.get(gold, "A") if len(gold) == 1 else "17.5" for gold in golds]
        assert verdicts(perturbed) == [False] * len(golds)
        unclosed = [f"<think>\\boxed{{{each}}}" for each in golds]
        assert [each.correct for each in grader.grade(unclosed, golds)] == [False] * len(golds)


def test_choices_are_lettered_in_an_order_of_their_own_and_the_gold_is_their_letter(
    tmp_path: Path,
) -> None:
    found = local("gpqa-diamond", tmp_path)
    for each in found:
        lines = [line for line in each.prompt.splitlines() if line[1:3] == ") "]
        assert [line[0] for line in lines] == list("ABCD")
        assert len({line[3:] for line in lines}) == 4
        assert f"{each.gold}) 10^-4 eV" in lines
        assert each.prompt.endswith("put the letter of your answer within \\boxed{}.")
    counts = [sum(each.gold == letter for each in found) for letter in "ABCD"]
    assert min(counts) >= 4  # of 40
    assert found == local("gpqa-diamond", tmp_path)
    assert found != local("gpqa-diamond", tmp_path, seed=1)


def test_the_demo_asks_unseen_problems_as_they_are() -> None:
    expected = sample_problems(3, "test", 5)
    assert load_task("demo", limit=5, seed=3) == [
        Question(f"{number:05}", each.prompt, str(each.answer))
        for number, each in enumerate(expected, start=1)
    ]


def test_the_limit_takes_the_first_questions(tmp_path: Path) -> None:
    assert local("math500", tmp_path, limit=2) == local("math500", tmp_path)[:2]


def test_the_digest_names_wording_gold_and_order() -> None:
    first, second = Question("1", "p", "g"), Question("2", "q", "h")
    digests = {
        digest_of(each)
        for each in (
            [first, second],
            [second, first],
            [first],
            [Question("1", "p", "x"), second],
            [Question("1", "p ", "g"), second],
        )
    }
    assert len(digests) == 5


def test_a_row_that_does_not_fit_is_named(tmp_path: Path) -> None:
    row = {**ROWS["gpqa-diamond"][0]}
    del row["Incorrect Answer 3"]
    path = jsonl(tmp_path / "bad.jsonl", [ROWS["gpqa-diamond"][0], row])
    with pytest.raises(BadRow, match=r"bad.jsonl:2: no column Incorrect Answer 3"):
        load_task("gpqa-diamond", data=path)


def test_data_that_cannot_be_read_or_is_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"data='x.txt' .* \.jsonl, .*\.parquet"):
        load_task("gsm8k", data="x.txt")
    with pytest.raises(InvalidSetting, match="holds no rows"):
        load_task("gsm8k", data=jsonl(tmp_path / "empty.jsonl", []))


def test_small_sets_are_answered_more_often_and_every_default_is_overridden() -> None:
    assert all(draws_of(name).samples >= 16 for name in ("amc23", "aime24", "aime25"))
    assert all(4 <= draws_of(name).samples <= 8 for name in ("math500", "gpqa-diamond"))
    assert draws_of("gsm8k").samples == 1
    sampling = draws_of("aime24").sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 20)
    demo = draws_of("demo").sampling
    assert (demo.temperature, demo.top_p, demo.top_k, demo.max_tokens) == (0.6, 1, 0, 900)
    given = draws_of("demo", samples=2, temperature=0.9, top_p=0.5, top_k=3, max_tokens=7)
    assert given.samples == 2
    assert (given.sampling.temperature, given.sampling.max_tokens) == (0.9, 7)
    assert (given.sampling.top_p, given.sampling.top_k) == (0.5, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 0}, "samples=0 .* 1 or more"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"temperature": 0.0}, "samples=4 .* at temperature 0 all are equal"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        draws_of("demo", **given)
    with pytest.raises(InvalidSetting, match=r"tasks='mmlu' .* gsm8k"):
        draws_of("mmlu", **given)


OWN = """
physics:
  source: {path: PATH, prompt: [context, question], answer: gold}
  samples: 3
  by: [level]
  suffix: " Box it."
  sampling: {max_tokens: 64, temperature: 0.5, min_p: 0.1}
math500: {samples: 9}
gpqa-diamond:
  source: {path: LETTERS, prompt: problem, answer: answer}
  choices: []
"""


def own_tasks(folder: Path) -> dict[str, Task]:
    rows = [{"context": f"Fact {n}.", "question": "Why?", "gold": n, "level": n} for n in (1, 2)]
    letters = [{"problem": "Which?\nA) one\nB) two", "answer": "(B)"}]
    text = OWN.replace("PATH", jsonl(folder / "own.jsonl", rows))
    text = text.replace("LETTERS", jsonl(folder / "letters.jsonl", letters))
    (folder / "tasks.yaml").write_text(text)
    return read_tasks(folder / "tasks.yaml")


def test_a_file_describes_tasks_of_the_users_own(tmp_path: Path) -> None:
    tasks = own_tasks(tmp_path)
    assert load_task("physics", tasks=tasks) == [
        Question(f"{n:05}", f"Fact {n}.\n\nWhy? Box it.", str(n), (("level", str(n)),))
        for n in (1, 2)
    ]
    draws = draws_of("physics", tasks=tasks)
    assert (draws.samples, draws.sampling) == (
        3,
        Sampling(64, 0.5, top_p=0.95, top_k=20, min_p=0.1),
    )
    assert tasks["math500"] == dataclasses.replace(TASKS["math500"], samples=9)
    assert tasks["gsm8k"] is TASKS["gsm8k"]
    assert read_tasks(None) is TASKS


def test_letters_may_stand_in_the_prompt(tmp_path: Path) -> None:
    (found,) = load_task("gpqa-diamond", tasks=own_tasks(tmp_path))
    assert found.prompt.startswith("Which?\nA) one\nB) two Please reason")
    texts = [f"</think>\\boxed{{{each}}}" for each in ("B", "\\text{(B)}", "A")]
    with Grader(seconds=60) as grader:
        assert [each.correct for each in grader.grade(texts, [found.gold] * 3)] == [
            True,
            True,
            False,
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t: {sorce: {demo: 1}}", r"t\.yaml: t\.sorce is unknown: did you mean 'source'"),
        ("t: {samples: 2}", r"t\.source is missing"),
        ("t: {source: {demo: 1}, samples: 0}", r"t\.samples=0"),
        ("t: {source: {demo: 1}, sampling: {seed: 3}}", "max_tokens is missing|use --seed"),
        ("demo: {sampling: {seed: 3, max_tokens: 9}}", "use --seed"),
    ],
)
def test_a_file_that_describes_no_task_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        read_tasks(tmp_path / "t.yaml")


def test_a_group_that_no_row_has_is_refused_in_tasks_of_the_users_own(tmp_path: Path) -> None:
    own = {"t": Task(Source(demo=2, demo_split="test"), by=("levle",))}
    with pytest.raises(InvalidSetting, match=r"by of t='levle' .* no row has this column"):
        load_task("t", tasks=own)
    groups = [each.groups for each in local("math500", tmp_path)]
    assert groups[0] == (("level", "1"),)  # which lacks the other column


COINS = Task(Source(demo=2, demo_split="test"), samples=2)


def test_a_task_of_a_module_is_found_by_its_name() -> None:
    assert task_of(f"{__name__}:COINS") is COINS
    assert len(load_task(f"{__name__}:COINS")) == 2
    with pytest.raises(InvalidSetting, match=r"name a training\.evaluation\.tasks\.Task"):
        task_of(f"{__name__}:ROWS")


def test_one_task_has_sampling_of_its_own() -> None:
    own = {"samples": 2, "max_tokens": 7, "min_p": 0.2}
    draws = draws_of("demo", own=own, samples=5, temperature=0.9)
    assert draws == Draws(2, Sampling(7, 0.9, min_p=0.2))
    with pytest.raises(InvalidSetting, match=r"sampling='max_token' .* did you mean 'max_tokens'"):
        draws_of("demo", own={"max_token": 7})
    with pytest.raises(InvalidConfig, match=r"sampling\.max_tokens='many'"):
        draws_of("demo", own={"max_tokens": "many"})
    with pytest.raises(InvalidSetting, match="top_p=0"):
        draws_of("demo", own={"top_p": 0.0})


def test_the_tasks_in_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "tasks.yaml").write_text(block)
    tasks = read_tasks(tmp_path / "tasks.yaml")
    assert tasks["exam"].by == ("chapter", "level")
    assert tasks["gpqa-letters"].request.endswith("within \\boxed{}.")
    assert tasks["math500"].samples == 16
