"""The demo model's thinking format for the engine's drivers."""

from stepgrpo_core.families.table import FAMILIES
from stepgrpo_core.families.thinking import thinking_of
from tests.support.models import TOKENIZER

THINKING = thinking_of(TOKENIZER, FAMILIES["demo"], "\n</think>\n\n")
PROMPT = TOKENIZER.encode("1+1=")
HEADER = "<|im_start|>assistant\n"
TURN = tuple(TOKENIZER.encode(HEADER, add_special_tokens=False))
