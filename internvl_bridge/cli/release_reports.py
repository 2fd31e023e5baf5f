"""The releases that are known, for people and for programs."""

from collections.abc import Iterator
from typing import Any

from internvl_bridge.catalog.releases import REFUSED, RELEASES, Release, all_remarks

_COLUMNS = ("Release", "Size", "Language model", "Tower", "Template", "Converts", "Remarks")


def release_lines() -> Iterator[str]:
    """All releases as a table, and what is to be said of some."""
    rows = [_COLUMNS, *map(_cells, RELEASES)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    for number, remark in enumerate(all_remarks(), 1):
        yield f"{number}. {remark}"
    yield ""
    yield "Releases whose names end with -hf or -HF are the same models in the HF format: to-custom converts them."
    yield ""
    yield "Refused:"
    for refused in REFUSED:
        yield f"  {', '.join(refused.names)}: {refused.reason}"


def releases_as_json() -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "releases": [
            {
                "name": release.name,
                "variants": list(release.variants),
                "architecture": release.language_model.family.architecture,
                "language_model": release.language_model.name,
                "tower": release.tower.kind,
                "template": release.template,
                "parameters": release.parameters,
                "vocab_size": release.vocabulary,
                "image_token_id": release.image_token,
                "directions": ["to-hf", "to-custom"],
                "remarks": list(release.remarks),
            }
            for release in RELEASES
        ],
        "refused": [{"names": list(refused.names), "reason": refused.reason} for refused in REFUSED],
    }


def _cells(release: Release) -> tuple[str, ...]:
    return (
        ", ".join((release.name, *release.variants)),
        f"{release.parameters / 1e9:.1f}B",
        release.language_model.family.architecture,
        release.tower.kind.removeprefix("InternViT-").removesuffix(" kind"),
        release.template,
        "both ways",
        " ".join(str(1 + all_remarks().index(remark)) for remark in release.remarks),
    )
