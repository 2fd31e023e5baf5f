"""What people read is plain English: the turns that readers of other languages stumble over stay out."""

import re
from pathlib import Path

import pytest
from support import ROOT

TURNS = {
    "is not a": r"(?<!\b[Tt]here )\b(is|are|was|were) no (?!longer\b|more\b|other\b)[a-z]",
    "is not one of": r"(?<!\b[Tt]here )\b(is|are) none\b",
    "is cut off": r"\bbreaks? off\b",
    "shows, states, says": r"\b[Tt]ells?\b(?! apart\b)(?!\()",
    "has, gives": r"\blends?\b",
    "a note names it": r"\bsays so\b",
    "does not have, does not know": r"\bknows? (none|no)\b",
}
READ = [
    *(path for path in (ROOT / "internvl_bridge").rglob("*.py")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")),
]


@pytest.mark.parametrize("instead", TURNS)
def test_a_turn_that_readers_stumble_over_is_not_used(instead: str):
    turn = re.compile(TURNS[instead])
    found = [f"{path.relative_to(ROOT)}: {place}" for path in READ for place in uses(turn, path)]

    assert not found, f"write {instead!r}:\n" + "\n".join(found)


def uses(turn: re.Pattern[str], path: Path) -> list[str]:
    """The surroundings of each use, also of one that a line break or a quote divides."""
    text = re.sub(r'"?\s*\n\s*(f?"|#)?\s*', " ", path.read_text())
    return [text[max(0, match.start() - 40) : match.end() + 40] for match in turn.finditer(text)]
