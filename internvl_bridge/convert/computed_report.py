"""What was computed, or would be, for a report."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from internvl_bridge.convert.computation import Computed
from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.reporting.tables import Part, number_text


def computed_report(computed: Computed, tensors: int, *, every: bool) -> Iterator[Part]:
    """What was computed for an output of so many ``tensors``; ``every``: with a line for each module."""
    yield how_computed(computed.tensors, tensors, computed.dtype, merges=bool(computed.modules))
    if computed.modules:
        yield f"Merged: {len(computed.modules)} modules."
        yield from module_lines(computed.modules, every=every)
    for part, found in computed.roundings.items():
        zeros = f"; {found.vanished:,} numbers became zero" if found.vanished else ""
        yield f"Rounded: the {part}, largest relative error {number_text(found.error)} ({found.key}){zeros}."


def how_computed(computed: int, tensors: int, dtype: str | None, *, merges: bool) -> str:
    """By what arithmetic so many of the ``tensors`` are ``computed``."""
    sums = "W + s B A in float64, rounded once" if merges else "rounded once to the nearest"
    to = f" to {dtype}" if dtype else ""
    others = f" The other {tensors - computed} are copied as bytes." if computed < tensors else ""
    return f"Arithmetic, not a bit-exact copy: {computed} of {tensors} tensors are {sums}{to}.{others}"


def module_lines(modules: Mapping[str, Iterable[float]], *, every: bool) -> Iterator[Part]:
    """The modules with their scalings, those of all layers in one line unless ``every`` one is to be named."""
    names = {name: name if every else numberless(name) for name in modules}
    lines = Counter((names[name], " + ".join(f"{scale:g}" for scale in scales)) for name, scales in modules.items())
    for (name, scales), count in lines.items():
        yield f"  {count:>5} x {name}, s = {scales}"
