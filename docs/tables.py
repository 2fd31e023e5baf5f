"""Write the tables in README.md and in the pages here that the package's own data make.

    python docs/tables.py

A table stands between two comments, ``<!-- NAME: made by docs/tables.py -->`` and ``<!-- end of NAME -->``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from internvl_bridge.catalog.engines import ENGINES, Support
from internvl_bridge.catalog.releases import REFUSED, RELEASES, all_remarks
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import FAMILIES
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.tables import VISION_AND_PROJECTOR, Table
from internvl_bridge.mapping.transforms import Fuse, Transform

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_DIMS = TextDims(8, 8, 8, 1, 4, 2, 2, attention_bias=True, mlp_bias=False, experts=None)
"""Of a model whose table is shown: the names do not depend on them."""
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


def _keys() -> Iterator[str]:
    """The tensors of the tower and the projector, then those of each language model."""
    yield "## Vision tower and projector"
    yield ""
    yield from _key_rows(VISION_AND_PROJECTOR)
    for family in FAMILIES:
        yield ""
        yield f"## {family.name}"
        yield ""
        yield f"Custom class `{family.architecture}`, HF type `{family.hf_model_type}`."
        yield ""
        yield from _key_rows(family.language_table(_DIMS))


def _key_rows(table: Table) -> Iterator[str]:
    return _rows(("Custom", "HF", "How"), (_key_row(transform) for transform in table))


def _key_row(transform: Transform) -> tuple[str, str, str]:
    custom, hf = _keys_text(transform.custom_patterns), _keys_text(transform.hf_patterns)
    renamed = "the same name" if custom == hf else "renamed"
    return custom, hf, f"split into {len(transform.hf_patterns)}" if isinstance(transform, Fuse) else renamed


def _keys_text(patterns: Iterable[KeyPattern]) -> str:
    return ", ".join(f"`{pattern.template}`" for pattern in patterns)


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "families": _families,
    "releases": _releases,
    "remarks": _remarks,
    "refused": _refused,
    "engines": _engines,
    "keys": _keys,
}


def with_tables(text: str) -> str:
    """``text`` with every table in it as the package's data make it now."""
    return _TABLE.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[4], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
