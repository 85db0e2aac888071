"""How far predicted savings can be trusted."""

from dataclasses import dataclass

from stepgrpo_core.savings.baseline import Prediction
from stepgrpo_core.savings.conformal import widened

__all__ = ["Trust"]


@dataclass(frozen=True, slots=True)
class Trust:
    """In the predictions for one model under one policy."""

    margin: float = 0.0
    """Tokens on both ends of their intervals."""
    stale: bool = False
    """Their intervals hold too few outcomes, or too many: calibrate again."""

    def widen(self, prediction: Prediction) -> Prediction:
        """The prediction as clients see it."""
        return widened(prediction, self.margin)
