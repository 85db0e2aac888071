"""Files of problems."""

import json
from pathlib import Path

from training.data.sources import Source


def jsonl(path: Path, *rows: object) -> Source:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return Source(path=str(path))


def problems(path: Path, *prompts: str) -> Source:
    return jsonl(path, *({"prompt": prompt, "answer": "1"} for prompt in prompts))
