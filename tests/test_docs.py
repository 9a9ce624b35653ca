"""Every Python example in README.md and docs/ runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))):
        text = path.read_text()
        for match in FENCED.finditer(text):
            line = text.count("\n", 0, match.start(1))
            yield pytest.param(path, line, match[1], id=f"{path.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize(("path", "line", "code"), list(examples()))
def test_example(path, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shifted = "\n" * line + code  # so that a traceback names the line of the document
    exec(compile(shifted, str(path), "exec"), {"__name__": "__main__"})
