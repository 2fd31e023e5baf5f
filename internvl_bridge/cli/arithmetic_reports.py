"""Reports about what is computed, as text for people."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from internvl_bridge.cli.numberless import numberless
from internvl_bridge.convert.computation import Computation, Computed
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.sizes import human_size


def computed_lines(computed: Computed, tensors: int, *, verbose: bool) -> Iterator[str]:
    """What was computed, line by line."""
    yield f"  {_how(computed.tensors, tensors, computed.dtype, merges=bool(computed.modules))}"
    if computed.modules:
        yield f"  Merged: {len(computed.modules)} modules."
        yield from _module_lines(computed.modules, verbose=verbose)
    for part, found in computed.roundings.items():
        zeros = f"; {found.vanished:,} numbers became zero" if found.vanished else ""
        yield f"  Rounded: the {part}, largest relative error {found.error:.3g} ({found.key}){zeros}."


def computation_plan_lines(conversion: Conversion, computation: Computation, budget: Budget) -> Iterator[str]:
    """What a merge or a cast would do, line by line."""
    model = conversion.model
    yield (
        f"Would {conversion.command} {model.source.weights} ({model.format.value}, {model.description.family.name}) "
        f"into {conversion.output}, in the same format."
    )
    count = len(conversion.plan.recipes)
    yield _how(len(computation.tensors), count, computation.dtype, merges=bool(computation.modules))
    scales = {name: [scaling.value for scaling in found] for name, found in computation.modules.items()}
    yield from _module_lines(scales, verbose=False)
    yield f"Would write: {', '.join(conversion.files)}"
    yield f"Room: needs {human_size(budget.room)}, and {human_size(budget.free)} are free."
    if conversion.left_behind:
        yield f"Would leave behind: {', '.join(conversion.left_behind)}"
    for note in conversion.notes:
        yield f"Note: {note}"


def _how(computed: int, tensors: int, dtype: str | None, *, merges: bool) -> str:
    sums = "W + s B A in float64, rounded once" if merges else "rounded once to the nearest"
    to = f" to {dtype}" if dtype else ""
    return (
        f"Arithmetic, not a bit-exact copy: {computed} of {tensors} tensors are {sums}{to}. The other "
        f"{tensors - computed} are copied as bytes."
    )


def _module_lines(modules: Mapping[str, Iterable[float]], *, verbose: bool) -> Iterator[str]:
    """The modules, those of all layers in one line unless all are to be named."""
    names = {name: name if verbose else numberless(name) for name in modules}
    lines = Counter((names[name], " + ".join(f"{scale:g}" for scale in scales)) for name, scales in modules.items())
    for (name, scales), count in lines.items():
        yield f"    {count:>5} x {name}, s = {scales}"
