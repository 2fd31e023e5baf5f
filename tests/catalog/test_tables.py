"""The tables in the documentation are those that the package's data make, and the command prints the same."""

import json
import re
import runpy
from pathlib import Path

import pytest
from support import ROOT
from typer.testing import CliRunner

from internvl_bridge.catalog.engines import ENGINES
from internvl_bridge.catalog.releases import REFUSED, RELEASES
from internvl_bridge.cli.app import app

WRITER = runpy.run_path(str(ROOT / "docs" / "tables.py"))


@pytest.mark.parametrize("page", WRITER["PAGES"], ids=lambda page: page.name)
def test_the_tables_of_a_page_are_up_to_date(page: Path):
    text = page.read_text()
    assert WRITER["with_tables"](text) == text, "run 'make tables'"


def test_every_table_is_on_a_page():
    text = "".join(page.read_text() for page in WRITER["PAGES"])
    assert all(text.count(f"<!-- {name}: made by docs/tables.py -->") == 1 for name in WRITER["TABLES"])


def test_the_versions_of_engines_are_those_that_are_run():
    pinned = dict(re.findall(r"^([a-z-]+)==(\S+)$", (ROOT / "engines" / "requirements.txt").read_text(), re.MULTILINE))
    for engine in ENGINES:
        assert pinned.get(engine.name.lower(), engine.version) == engine.version


def test_the_command_prints_every_release():
    lines = CliRunner().invoke(app, ["models"]).stdout.splitlines()
    assert [line.split("  ")[0].split(",")[0] for line in lines[3 : len(RELEASES) + 3]] == [r.name for r in RELEASES]
    assert "InternVL3-9B, -Instruct, -Pretrained, -AWQ" in "".join(lines)
    assert all(any(refused.reason in line for line in lines) for refused in REFUSED)


def test_programs_get_the_same():
    document = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    found = {release["name"]: release for release in document["result"]["releases"]}
    assert list(found) == [release.name for release in RELEASES]
    assert round(found["InternVL3_5-30B-A3B"]["parameters"] / 1e9, 3) == 30.849
    assert found["InternVL2-8B"]["architecture"] == "InternLM2ForCausalLM"
    assert found["InternVL2-8B"]["directions"] == ["to-hf", "to-custom"]
