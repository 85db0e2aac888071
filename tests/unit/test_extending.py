"""Objects of the user's own, as docs/extending.md shows them, by name and by entry point."""

import dataclasses
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.config.layers import BadOption
from stepgrpo_core import POLICIES, ExitReason, InvalidSetting, build_policy, build_reward
from stepgrpo_core.policies import Boundary, BoundaryKind
from tests.support.core.scripted import EOS, Script, play
from tests.support.service.defaults import read
from tests.support.training.groups import group
from training.config.schema import GradingConfig, InvalidConfig, load_config
from training.evaluation.command import exit_of
from training.evaluation.tasks import load_task, task_of
from training.grading import grader_of

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ENTRY_POINTS = """
[stepgrpo.rewards]
brief = shop:Brief
[stepgrpo.policies]
therefore = shop:Therefore
[stepgrpo.tasks]
prices = shop:prices
[stepgrpo.graders]
cents = shop:cents
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module in the current directory, and a package that has entry points for it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shop.py").write_text(code)
    (tmp_path / "prices.jsonl").write_text('{"prompt": "A pen?", "answer": "2"}\n')
    installed = tmp_path / "site" / "shop-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(before)
    sys.modules.pop("shop", None)


def test_the_pages_commands_name_what_its_module_has() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w\"])shop:(\w+)", text))
    assert {"Brief", "Therefore", "cents", "prices"} == named | {"cents"}


@pytest.mark.parametrize("name", ["shop:Brief", "brief"])
def test_a_reward_of_ones_own_pays(name: str) -> None:
    config = load_config(["demo"], [f"reward.name={name}", "reward.settings.most=3"])
    assert config.reward.build()([group("++-", steps=[3, 4, 1])]) == [[1.0, 0.0, 0.0]]
    assert build_reward(name)([group("+?", steps=[4, 1])]) == [[1.0, None]]


@pytest.mark.parametrize("name", ["shop:Therefore", "therefore"])
def test_a_policy_of_ones_own_exits_in_training_evaluation_and_server(
    name: str, tmp_path: Path
) -> None:
    trained = load_config(["demo"], [f"rollout.exit.policy={name}"]).rollout.exit
    evaluated = exit_of(f"confidence+{name}:min_tokens=4")
    served = read("--exit-policy", f"confidence+{name}", at=tmp_path).settings
    line = Boundary(9, 1, 9, BoundaryKind.LINE, text="Therefore it is 4.\n")
    for settings in (trained, evaluated, served):
        policy = build_policy(settings)[-1]
        assert policy.decide(line, None).reason is ExitReason.CUSTOM


def test_a_policy_of_ones_own_closes_the_thinking_like_any_other() -> None:
    settings = dataclasses.replace(exit_of("shop:Therefore"), answer_reserve=0)
    words = ["<think>", "2", "+2", "\n", "Therefore", " 4", "\n", "Wait", "</think>", "ok", ""]
    played = play(Script(words, answer=(50, 51, EOS)), settings, max_tokens=400)
    assert played.outcome.reason is ExitReason.CUSTOM
    assert played.close is not None
    assert played.close.position == 7  # after the line


def test_requests_may_choose_only_what_the_operator_named(tmp_path: Path) -> None:
    assert "shop:Therefore" not in POLICIES
    assert read("--exit-own-policies", "shop:Therefore", at=tmp_path).settings.policy == "none"
    assert "shop:Therefore" in POLICIES
    with pytest.raises(InvalidSetting, match="policy='os:system'"):
        build_policy(exit_of("none").__class__(policy="os:system"))


@pytest.mark.parametrize("name", ["shop:prices", "prices"])
def test_a_task_of_ones_own_brings_its_grader(name: str) -> None:
    (question,) = load_task(name)
    with grader_of(GradingConfig(grader=task_of(name).grader), "<think>", "</think>") as grader:
        verdicts = grader.grade(["<think>.</think>$2", "<think>.</think>2"], [question.gold] * 2)
    assert [each.correct for each in verdicts] == [True, False]


def test_a_grader_is_found_by_its_entry_point() -> None:
    with grader_of(GradingConfig(grader="cents"), "<think>", "</think>") as grader:
        assert grader.grade(["<think></think>$3"], ["3"])[0].correct


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("reward.name=shop:Brif", "reward.name='shop:Brif' is invalid: it cannot be imported"),
        ("reward.name=shop:Therefore", "name a dataclass with source"),
        ("reward.name=shops:Brief", "No module named 'shops'"),
        ("reward.name=bref", "use one of accuracy, alp"),
        ("rollout.exit.policy=shop:There", "policy='shop:There' is invalid: it cannot be imported"),
        ("rollout.exit.policy=shop:prices", "name a class that is built from ExitSettings"),
        ("grading.grader=cent", "write package.module:name"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_its_key(override: str, problem: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(problem)):
        load_config(["demo", "methods/lp"], [override])


@pytest.mark.parametrize("name", ["shop:There", "elsewhere"])
def test_the_server_refuses_an_own_policy_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=f"--exit-own-policies='{name}'"):
        read("--exit-own-policies", name, at=tmp_path)


def test_a_name_of_the_project_goes_before_an_entry_point() -> None:
    assert importlib.metadata.entry_points(group="stepgrpo.rewards", name="brief")
    assert build_reward("accuracy").source.startswith("GRPO")
