"""Unknown names get the closest known one, or all of them."""

import pytest

from stepgrpo_core.names import closest, suggest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("treshold", "did you mean 'threshold'?"),
        ("x", "use one of policy, threshold"),
        (True, "use one of policy, threshold"),
    ],
)
def test_an_unknown_name_gets_one_remedy(name: object, text: str) -> None:
    assert suggest(name, ("threshold", "policy")) == text


def test_how_close_a_name_must_be_is_the_callers() -> None:
    assert closest("polic", ["policy"], 0.99) is None
    assert closest("p", ["policy", "mean"], 0.0) == "policy"
