"""The page on the operators says what is so."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_its_examples_run():
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    known = {}
    for example in examples:
        exec(compile(example, PAGE.name, "exec"), known)  # checks itself with asserts
    assert known["low"].shape == known["answer"].shape
