"""Figures of what a conversion moves: files before and after, parameters, and how tensors are made."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from internvl_bridge.checkpoint.component_sizes import component_sizes
from internvl_bridge.checkpoint.inspection_report import count_text
from internvl_bridge.checkpoint.weights import stored_plan, whole_specs
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.moves import Moves
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.mapping.components import COMPONENTS, place_of
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.pages.comparison_figures import component_colors
from internvl_bridge.pages.figures import Bar, BarChart, Panel, Segment
from internvl_bridge.pages.tensor_moves import bytes_of, way_of
from internvl_bridge.reporting.sizes import human_size

_ADAPTER = "adapter"
"""What a file of an adapter holds."""
_MOST_FILES = 120
"""Files of a side that are drawn."""
_HOW = {
    "kept": "keep their names",
    "renamed": "get another name",
    "split": "are parts of another tensor",
    "fused": "are made of several tensors",
    "reordered": "are put into another order",
    "computed": "are computed",
}
_Part = tuple[str, int]
"""A component, and its bytes."""


def file_figure(moves: Moves) -> BarChart:
    """The files of weights before and after, to scale: which component is where in each."""
    before, after = _source_files(moves), _output_files(moves)
    components = {component for files in (before, after) for parts in files.values() for component, _ in parts}
    return BarChart(
        title="Files of weights, before and after",
        text=f"{_counted(before)} before, {_counted(after)} after. The length of a bar is the size of "
        f"the tensors that are used. The colours are their components, in the order of the file.",
        panels=(_file_panel("Before", before), _file_panel("After", after)),
        kinds={**component_colors(components), **({_ADAPTER: len(COMPONENTS)} if _ADAPTER in components else {})},
    )


def parameter_figure(specs: Mapping[str, TensorSpec]) -> BarChart:
    """The parameters of each component and of its groups."""
    found = component_sizes(specs)
    divided = {size.component for size in found if size.group is not None}
    sizes = [size for size in found if (size.group is not None) == (size.component in divided)]
    bars = tuple(
        Bar(
            size.component if size.group is None else f"{size.component}: {size.group}",
            (Segment(size.component, size.parameters, count_text(size.parameters)),),
            f"{count_text(size.parameters)}, {human_size(size.bytes)}",
        )
        for size in sizes
    )
    total = sum(size.parameters for size in sizes)
    return BarChart(
        "Parameters by component",
        f"{total:,} parameters of the output.",
        (Panel("", bars),),
        component_colors(size.component for size in sizes),
    )


def making_figure(moves: Moves) -> BarChart:
    """How the tensors of the output are made, by bytes."""
    found: dict[str, list[int]] = {}
    for key, spec in moves.specs.items():
        found.setdefault(way_of(moves, key), []).append(bytes_of(spec))
    kinds = {kind: series for series, kind in enumerate(_HOW) if kind in found}
    bars = tuple(
        Bar(
            kind,
            (Segment(kind, sum(found[kind]), human_size(sum(found[kind]))),),
            f"{len(found[kind]):,} tensors, {human_size(sum(found[kind]))}",
        )
        for kind in kinds
    )
    told = "; ".join(f"{len(found[kind]):,} {_HOW[kind]}" for kind in kinds)
    return BarChart("How tensors are made", f"Of the output's tensors: {told}.", (Panel("", bars),), kinds)


def cost_figure(budget: Budget) -> BarChart:
    """What a conversion would cost the disk."""
    values = {
        "read": budget.read,
        "written": budget.written,
        "cloned": budget.cloned,
        "linked": budget.linked,
        "read to compare": 2 * budget.verified,
        "deleted in the source": budget.consumed,
        "finished already": budget.kept,
    }
    verdict = "It fits" if budget.fits else "It does not fit"
    return _bytes_figure(
        "What it costs",
        f"{verdict}: {human_size(budget.room)} are needed, and {human_size(budget.free)} are free.",
        {name: size for name, size in values.items() if size or name == "written"},
    )


def moved_figure(report: ConversionReport, moves: Moves) -> BarChart:
    """How the bytes of the output of ``report`` were written, where it was made by ``moves``."""
    specs, kept = moves.specs, {*report.kept}
    written = [shard for shard in moves.shards if shard.name not in kept]
    computed = (key for shard in written for key in shard.keys if key in moves.computed)
    values = {
        "cloned": report.cloned,
        "linked": report.linked.bytes if report.linked else 0,
        "computed": sum(bytes_of(specs[key]) for key in computed),
        "kept from an earlier run": report.bytes - sum(shard.data_size for shard in written),
    }
    copied = report.bytes - sum(values.values())
    return _bytes_figure(
        "How the bytes were written",
        "Cloned bytes share their blocks on the disk with the source. Linked files are the source's own. Copied bytes "
        "were read and written.",
        {name: size for name, size in {"copied": copied, **values}.items() if size},
    )


def _bytes_figure(title: str, text: str, values: Mapping[str, int]) -> BarChart:
    bars = tuple(
        Bar(name, (Segment("bytes", size, human_size(size)),), human_size(size)) for name, size in values.items()
    )
    return BarChart(title, text, (Panel("", bars),), {"bytes": 0})


def _source_files(moves: Moves) -> dict[str, list[_Part]]:
    """The files of weights and of adapters, by their names; with their directories where two have one name."""
    checkpoint = moves.weights.checkpoint
    component_of = _stored_components(moves)
    stored: dict[Path, list[_Part]] = {shard.path: [] for shard in checkpoint.shards}
    for key, tensor in checkpoint.tensors.items():
        component = component_of.get(key) or place_of(key).component
        stored[checkpoint.shards[tensor.shard].path].append((component, tensor.data.length))
    stored |= {shard.path: [(_ADAPTER, shard.stamp.size)] for shard in moves.adapters}
    names = Counter(path.name for path in stored)
    return {(path.name if names[path.name] == 1 else str(path)): _joined(parts) for path, parts in stored.items()}


def _stored_components(moves: Moves) -> dict[str, str]:
    """The components of what the source stores, by what becomes of it: wrappers and dumps have other names."""
    if not moves.plan.sources.keys() <= whole_specs(moves.weights).keys():
        return {}
    recipes = stored_plan(moves.plan, moves.weights).recipes.items()
    return {run.key: place_of(key).component for key, recipe in recipes for run in recipe.runs}


def _output_files(moves: Moves) -> dict[str, list[_Part]]:
    specs = moves.specs
    return {
        shard.name: _joined((place_of(key).component, bytes_of(specs[key])) for key in shard.keys)
        for shard in moves.shards
    }


def _joined(parts: Iterable[_Part]) -> list[_Part]:
    """``parts`` with neighbours of one component as one."""
    return [(component, sum(size for _, size in some)) for component, some in groupby(parts, lambda part: part[0])]


def _file_panel(title: str, files: Mapping[str, list[_Part]]) -> Panel:
    bars = tuple(_file_bars(files))
    return Panel(f"{title}: {_counted(files)}", bars)


def _file_bars(files: Mapping[str, list[_Part]]) -> Iterator[Bar]:
    for name, parts in [*files.items()][:_MOST_FILES]:
        segments = tuple(Segment(component, size, human_size(size)) for component, size in parts)
        yield Bar(name.removesuffix(".safetensors"), segments, human_size(sum(size for _, size in parts)))
    if (more := len(files) - _MOST_FILES) > 0:
        yield Bar(f"and {more} more", (), "")


def _counted(files: Mapping[str, list[_Part]]) -> str:
    size = sum(length for parts in files.values() for _, length in parts)
    return f"{len(files)} {'file' if len(files) == 1 else 'files'}, {human_size(size)}"
