"""What a checkpoint holds, as a report."""

from collections.abc import Iterator, Mapping, Sequence

from internvl_bridge.checkpoint.component_sizes import ComponentSize
from internvl_bridge.checkpoint.inspection import Inspection
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.usage import Usage
from internvl_bridge.reporting.commands import typed_path, unbroken
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part, Table

_HEADS = {
    "own": "stored",
    "shared": "tied to the input embeddings",
    "copy": "stored, a copy of the input embeddings (tied)",
    None: "unknown",
}


def inspection_report(found: Inspection) -> Iterator[Part]:
    """What ``found`` says: facts, the components with their sizes, and what is wrong."""
    spelling = f", keys spelled {found.spelling}" if found.spelling else ""
    experts = f", {found.experts} experts" if found.experts else ""
    yield Facts(
        {
            "Checkpoint": found.path,
            "Format": f"{found.format}{spelling}",
            "Language model": f"{found.family} ({found.architecture}), {found.text_layers} layers{experts}",
            "Vision tower": f"{found.tower}, {found.vision_layers} layers",
            "Parameters": f"{found.parameters:,} in {found.tensors:,} tensors",
            "Data": f"{human_size(found.bytes)} in {found.shards} file(s) of {found.container}",
            "Output head": _HEADS[found.head],
            **(_usage_facts(found.usage) if found.usage else {}),
            "Convertible": "yes" if found.refusal is None else f"no. {found.refusal}",
            "Loads with": _loading(found),
            "Served by": f"{engines_text(found.engines)} (docs/serving.md)",
        }
    )
    yield ""
    yield component_table(found.components)
    yield from (f"Beware: {fault}" for fault in (*found.faults, *found.remarks))


def inspection_summary(found: Inspection) -> str:
    """What a source turned out to be, in a phrase."""
    keys = "custom keys" if found.spelling is None else f"HF keys spelled {found.spelling}"
    writer = f", config.json by transformers {found.saved_by}" if found.saved_by else ""
    return f"{keys}, output head {_HEADS[found.head]}, in {found.container}{writer}"


def engines_text(engines: Sequence[str]) -> str:
    """The engines that take a checkpoint."""
    return ", ".join(engines) or "no engine that was tried"


def component_table(components: Sequence[ComponentSize]) -> Table:
    """The sizes of ``components``."""
    return Table(
        ("Component", "Layers", "Tensors", "Parameters", "Size", "Dtypes"),
        "lrrrrl",
        tuple(
            (
                size.component if size.group is None else f"  {size.group}",
                f"{size.layers}" if size.layers else "",
                f"{size.tensors:,}",
                count_text(size.parameters),
                human_size(size.bytes),
                _dtypes_text(size.dtypes),
            )
            for size in components
        ),
    )


def _usage_facts(usage: Usage) -> dict[str, str]:
    tiles = "a number that no file states" if usage.largest is None else f"{usage.smallest} to {usage.largest}"
    has = {True: "present", False: "missing"}
    return {
        "Images": (
            f"tiles of {usage.image_size} x {usage.image_size} pixels, {usage.tokens_per_tile} tokens each; tiles of "
            f"an image: {tiles}; ps_version {usage.ps_version}"
        ),
        "Template": usage.template or "none that is known",
        "Tokenizer": has[usage.tokenizer],
        "Processor": has[usage.processor],
    }


def _loading(found: Inspection) -> str:
    """What opens the checkpoint as it is, and how to make one that everything opens."""
    place = typed_path(found.path)
    if found.refusal is not None:
        return "see above"
    if found.format == Format.CUSTOM.value:
        return (
            "internvl_bridge.load_pretrained; transformers 4 with upstream's remote code. For transformers' own "
            "class: " + unbroken(f"internvl-bridge to-hf {place} OUTPUT")
        )
    versions = f"transformers {', '.join(found.transformers)}"
    if not found.repairable:
        return versions
    return f"{versions} only. For more versions: " + unbroken(f"internvl-bridge repair {place} OUTPUT")


def count_text(number: int) -> str:
    """A number of parameters as people say it."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number}"


def _dtypes_text(dtypes: Mapping[str, int]) -> str:
    if len(dtypes) == 1:
        return "".join(dtypes)
    total = sum(dtypes.values())
    return ", ".join(f"{dtype} {count / total:.0%}" for dtype, count in dtypes.items())
