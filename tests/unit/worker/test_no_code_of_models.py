"""No code that comes with a model is run, and no prompt waits for a yes."""

from __future__ import annotations

import ast
from pathlib import Path

HARNESS = Path(__file__).parents[3] / "harness"
LOADING = {"from_pretrained", "from_config"}


def test_trust_remote_code_is_false_wherever_transformers_loads_something():
    """One call left it out; transformers then asks, and waits. `**options` come from calls that state it."""
    asking, num_calls = [], 0
    for path in HARNESS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADING:
                num_calls += 1
                stated = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if stated.get("trust_remote_code") != "False" and stated.get(None) != "options":
                    asking.append(f"{path.name}:{node.lineno}")
    assert (asking, num_calls >= 5) == ([], True)
