"""Rows of the demo's table of results: methods, their configuration and number of seeds."""

from dataclasses import dataclass

__all__ = ["METHODS", "STEPS", "Method", "Run", "runs_of"]

STEPS = 80
"""Optimizer steps of every GRPO run."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method to train `demo-base`."""

    name: str
    title: str
    overlay: str
    """Preset that overrides the demo's."""
    command: str = "grpo"
    seeds: int = 1
    overrides: tuple[str, ...] = ()
    continues: str | None = None
    """Method whose finished run is continued from its last checkpoint."""
    way: bool = False
    """True if intermediate checkpoints are evaluated, too."""
    reduced: bool = False
    """True if the method is part of the reduced table."""


METHODS: tuple[Method, ...] = (
    Method("step-grpo", "**Step-GRPO**", "methods/step-grpo", seeds=3, way=True, reduced=True),
    Method("grpo", "GRPO", "methods/grpo", seeds=3),
    Method("lp", "GRPO+LP", "methods/lp", seeds=3, way=True, reduced=True),
    Method("grpo-lambda", "GRPO-λ", "methods/grpo-lambda"),
    Method(
        "deer-sft",
        "DEER+SFT",
        "methods/deer-sft",
        command="sft",
        overrides=(
            "sft.trl.bf16=false",
            "sft.trl.gradient_checkpointing=false",
            "sft.trl.learning_rate=1e-3",
            "sft.trl.max_length=1024",
        ),
    ),
    Method("no-step-reward", "Step-GRPO, no step reward", "methods/no-step-reward"),
    Method("no-truncation", "Step-GRPO, no truncation", "methods/no-truncation"),
    Method("all-baseline", "Step-GRPO, all-sample baseline", "methods/all-baseline"),
    Method(
        "step-grpo-long",
        "Step-GRPO, twice as long",
        "methods/step-grpo",
        overrides=(f"trl.max_steps={2 * STEPS}",),
        continues="step-grpo",
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A method with one seed."""

    method: Method
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the run's folder and contender."""
        return f"{self.method.name}-s{self.seed}"


def runs_of(*, reduced: bool) -> list[Run]:
    """Return all runs; a run comes after the one that it continues."""
    chosen = [each for each in METHODS if each.reduced or not reduced]
    return [
        Run(method, seed)
        for method in sorted(chosen, key=lambda each: each.continues is not None)
        for seed in range(1 if reduced else method.seeds)
    ]
