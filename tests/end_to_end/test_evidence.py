"""The cards in docs/evidence are there for every family, and say what the stored checkpoints give now."""

import re
from pathlib import Path

import pytest
from support import DATA, NAMES, ROOT, copy_custom

import internvl_bridge
from internvl_bridge.catalog.engines import ENGINES
from internvl_bridge.mapping.families import FAMILIES

CARDS = ROOT / "docs" / "evidence"
CHEAP = "phi3-300m"


def rows(page: Path) -> dict[str, list[str]]:
    """The rows of all tables of a page, by their first cell without its marks."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line[:1] == "|"
    ]
    return {re.sub(r"^\[(.*)\]\(.*\)$", r"\1", row[0]).strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("name", NAMES)
def test_every_stored_checkpoint_is_on_the_card_of_its_family(name: str):
    family = internvl_bridge.inspect(DATA / "custom" / name).family
    assert name in rows(CARDS / f"{family.lower()}.md"), "run 'make evidence'"
    assert f"[{family}]({family.lower()}.md)" in (CARDS / "index.md").read_text()


def test_every_family_is_on_the_index_and_every_engine_on_every_card():
    assert {family.name for family in FAMILIES} <= rows(CARDS / "index.md").keys(), "run 'make evidence'"
    cards = set(CARDS.glob("*.md")) - {CARDS / "index.md"}
    assert len(cards) == len({internvl_bridge.inspect(DATA / "custom" / name).family for name in NAMES})
    for card in cards:
        assert {engine.name: engine.version for engine in ENGINES}.items() <= {
            name: cells[0] for name, cells in rows(card).items()
        }.items(), card.name


def test_a_card_says_what_its_checkpoint_gives_now(tmp_path: Path):
    custom = copy_custom(CHEAP, tmp_path / "custom")
    there = internvl_bridge.to_hf(custom, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    seen = internvl_bridge.check_load(tmp_path / "hf", against=custom)

    [*_, stored, written, files, verified, opens, upstream, source] = rows(CARDS / "phi-3.md")[CHEAP]

    assert int(stored) == there.found.tensors
    assert int(written) == there.tensors
    names = sorted(path.name for path in custom.iterdir())
    kept = [name for name in names if (tmp_path / "back" / name).read_bytes() == (custom / name).read_bytes()]
    assert files.startswith(f"{len(kept)} of {len(names)},")
    comparison = internvl_bridge.verify(custom, tmp_path / "hf")
    assert verified == f"identical, {len(comparison.equal)} tensors, L2 {comparison.l2:g}"
    assert comparison.identical
    assert opens == ("yes" if seen.loads else "no")
    assert seen.against is not None
    assert float(source) == seen.against.largest
    assert float(upstream) <= 2e-5  # as test_parity.py computes it: the digits are those of a processor
