"""What commands of the trainer say before they load a model."""

import pytest

from training.cli import build_parser
from training.rollouts.offline import Engine


def refusal(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Return the error of a command, which must not load a model."""

    def loaded(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(Engine, "load", loaded)
    args = build_parser().parse_args(words)
    with pytest.raises((ValueError, OSError)) as caught:
        args.run(args)
    return str(caught.value)
