"""Trust in predicted savings."""

from dataclasses import dataclass

from stepgrpo_core.savings.baseline import Prediction
from stepgrpo_core.savings.conformal import widened

__all__ = ["Trust"]


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust in the predictions for one model under one policy."""

    margin: float = 0.0
    """Tokens that widen a prediction interval at both ends."""
    stale: bool = False
    """The intervals cover too few or too many outcomes: calibrate again."""

    def widen(self, prediction: Prediction) -> Prediction:
        """Return the prediction with its interval widened by the margin, as clients see it."""
        return widened(prediction, self.margin)
