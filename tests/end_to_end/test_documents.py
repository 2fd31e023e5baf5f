"""Every command and snippet of the documentation runs as it is written.

A comment before a block, ``<!-- not run: ... -->``, says what it would need. Of such commands the options are checked,
and of such snippets the syntax. The cards in docs/evidence are made by what they state.
"""

import ast
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from documents import command_ready, hub_of_documents, prepare
from support import ROOT
from sybil import Document, Example
from sybil.parsers.myst import CodeBlockParser
from typer.testing import CliRunner

from internvl_bridge.cli.app import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n$")
_EXIT_CODE = re.compile(r"# exit code (\d)")
_OURS = "internvl-bridge "
_OTHERS = ("pip ", "make ", "vllm ", "python ", "git ")
"""How commands of other programs begin."""
_LAUNCHED = re.compile(r"^(?:srun|torchrun|(?:job=\$\()?sbatch) .*?(internvl-bridge [^\")]+)")
"""A command of ours that another program starts."""


def blocks(page: Path, language: str) -> Iterator[tuple[str, bool]]:
    """The blocks of a language on ``page``, and whether they are run."""

    def look(example: Example) -> None:
        before = example.document.text[: example.start]
        found.append((str(example.parsed), _NOT_RUN.search(before) is None))

    found: list[tuple[str, bool]] = []
    document = Document.parse(str(page), CodeBlockParser(language, look))
    for example in document.examples():
        example.evaluate()
    return iter(found)


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """The commands in the blocks of ``page``, each in one line."""
    for language in ("sh", "console"):
        for text, is_run in blocks(page, language):
            for line in text.replace("\\\n", " ").splitlines():
                command = line.removeprefix("$ ")
                if (language == "sh" or line.startswith("$ ")) and command.strip() and not command.startswith("#"):
                    yield command, is_run


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=lambda page: page.name)
def test_the_commands_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with hub_of_documents(tmp_path) if "hf://" in page.read_text() else nullcontext():
        run_commands(page, tmp_path)


def run_commands(page: Path, home: Path) -> None:
    """Run the commands of ``page`` in ``home``; of those that are not run, look at the options."""
    for command, is_run in commands(page):
        if launched := _LAUNCHED.search(command):
            check_options(launched[1])
        elif not command.startswith(_OURS):
            assert command.startswith(_OTHERS), command
        elif is_run:
            wanted = _EXIT_CODE.search(command)
            arguments = command_ready(re.split(r" [|#]|  +#", command)[0], home)
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == (int(wanted[1]) if wanted else 0), f"{command}\n{result.output}"
        else:
            check_options(command)


def check_options(command: str) -> None:
    """Fail if a command has an argument that it does not take."""
    _, name, *arguments = re.split(r" [|#]", command)[0].split()
    group: Any = typer.main.get_command(app)
    group.commands[name].make_context(name, arguments)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # transformers', about its own code
@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))], ids=lambda page: page.name)
def test_the_snippets_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for text, is_run in blocks(page, "python"):
        tree = ast.parse(text, filename=str(page))
        if is_run:
            prepare(text, tmp_path)
            exec(compile(tree, str(page), "exec"), names)  # noqa: S102 (ours)


def test_every_text_that_troubleshooting_quotes_is_one_of_ours():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    ours = page[page.index("## From internvl-bridge") : page.index("## From transformers")]
    sources = [re.sub(r"\"\s*\n\s*f?\"", "", path.read_text()) for path in (ROOT / "internvl_bridge").rglob("*.py")]
    code = "\n".join(re.sub(r"\{[^{}]*\}", "...", text) for text in sources)
    quoted = [
        text for cell in re.findall(r"^\| (.*?) \|", ours, flags=re.MULTILINE) for text in re.findall("`([^`]+)`", cell)
    ]
    missing = [part for text in quoted for part in text.split(" ... ") if part.removesuffix(" ...") not in code]
    assert missing == []
