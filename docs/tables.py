"""Write the tables in README.md and in the pages here that the package's own data make.

    python docs/tables.py

A table stands between two comments, ``<!-- NAME: made by docs/tables.py -->`` and ``<!-- end of NAME -->``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from internvl_bridge.catalog.engines import ENGINES, Support
from internvl_bridge.catalog.releases import REFUSED, RELEASES, all_remarks
from internvl_bridge.mapping.families import FAMILIES

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_TABLE = re.compile(r"(<!-- ([a-z]+): made by docs/tables\.py -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(row)} |"


def _families() -> Iterator[str]:
    """Each family of language models, with the releases that have one."""
    releases = {family: [r.name for r in RELEASES if r.language_model.family is family] for family in FAMILIES}
    rows = (
        (family.name, ", ".join(names), f"`{family.architecture}`", f"`{family.hf_model_type}`")
        for family, names in releases.items()
        if names
    )
    return _rows(("Language model", "Releases", "Custom class", "HF type"), rows)


def _releases() -> Iterator[str]:
    heads = ("Release", "Size", "Language model", "Tower", "Template", "Embeddings", "`<IMG_CONTEXT>`", "Remarks")
    rows = (
        (
            ", ".join((release.name, *release.variants)),
            f"{release.parameters / 1e9:.1f}B",
            f"{release.language_model.name} (`{release.language_model.family.architecture}`)",
            release.tower.kind.removesuffix(" kind"),
            f"`{release.template}`",
            str(release.vocabulary),
            str(release.image_token),
            " ".join(str(1 + all_remarks().index(remark)) for remark in release.remarks),
        )
        for release in RELEASES
    )
    return _rows(heads, rows)


def _remarks() -> Iterator[str]:
    return (f"{number}. {remark}" for number, remark in enumerate(all_remarks(), 1))


def _refused() -> Iterator[str]:
    return _rows(("Releases", "Why"), ((", ".join(refused.names), refused.reason) for refused in REFUSED))


def _engines() -> Iterator[str]:
    rows = ((engine.name, engine.version, _support(engine.hf), _support(engine.custom)) for engine in ENGINES)
    return _rows(("Engine", "Version", "HF format", "Custom format"), rows)


def _support(support: Support | None) -> str:
    if support is None:
        return "no"
    missing = [family.name for family in FAMILIES if family not in support.families]
    taken = "all" if not missing else ", ".join(family.name for family in support.families)
    return " ".join(filter(None, (f"{taken} ({'run' if support.was_run else 'read'}).", support.remark)))


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "families": _families,
    "releases": _releases,
    "remarks": _remarks,
    "refused": _refused,
    "engines": _engines,
}


def with_tables(text: str) -> str:
    """``text`` with every table in it as the package's data make it now."""
    return _TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[4], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
