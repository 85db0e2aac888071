"""GRPO training with TRL: rollouts, rewards, metrics, and the export of the model."""
