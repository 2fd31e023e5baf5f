"""The releases that are known, for people and for programs."""

from collections.abc import Iterator
from typing import Any

from internvl_bridge.catalog.releases import REFUSED, RELEASES, Release, all_remarks
from internvl_bridge.reporting.tables import Part, Table


def release_report() -> Iterator[Part]:
    """All releases as a table, and what is to be said of some."""
    yield "These releases convert both ways. Fine-tunes convert as the release that they were made from."
    yield ""
    yield Table(("Release", "Size", "Model", "ViT", "Template", "See"), "lrllll", tuple(map(_cells, RELEASES)))
    yield ""
    yield "See:"
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
        release.language_model.family.name,
        release.tower.kind.removeprefix("InternViT-").removesuffix(" kind"),
        release.template,
        " ".join(str(1 + all_remarks().index(remark)) for remark in release.remarks),
    )
