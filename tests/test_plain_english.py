"""What people read is plain English: short sentences, and no turns that readers of other languages stumble over."""

import ast
import json
import re
from collections.abc import Iterator
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
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").glob("*.py"),
    *(ROOT / "examples").glob("*.ipynb"),
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


LONGEST = 22
"""Words in a sentence: about twenty."""


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(path: Path):
    found = [sentence for text in texts(path) for sentence in sentences(text) if len(words(sentence)) > LONGEST]
    assert not found, "divide:\n" + "\n".join(found)


def test_a_long_sentence_is_found():
    assert [len(words(sentence)) for sentence in sentences(f"One. {'word ' * 30}`code that counts once`. Two.")] == [
        1,
        31,
        1,
    ]


def texts(path: Path) -> Iterator[str]:
    """The strings of a module, or the prose of a document or notebook: no code, no table, no tree."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.JoinedStr(values):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in values)
                case ast.Constant(str(text)):
                    yield text
    elif path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    elif path.suffix == ".md":
        prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        yield "\n".join(line for line in prose.splitlines() if not line.startswith("|"))


def sentences(text: str) -> Iterator[str]:
    without_code = re.sub(r"``[^`]*``|`[^`]*`", "X", text)
    for paragraph in re.split(r"\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", without_code):
        if not re.search(r"[{}│\\]", paragraph):
            yield from re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))


def words(sentence: str) -> list[str]:
    return re.findall(r"[\w'./-]+", sentence)
