"""Where two checkpoints differ: their differences by component, by group of tensors and by layer."""

from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any, TypeVar

from internvl_bridge.mapping.components import COMPONENTS, GROUPS, TEXT, TOWER, Place, place_of
from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.verification.sort import Sort
from internvl_bridge.verification.tensor_difference import TensorDifference, as_number, norm_of, relative
from internvl_bridge.verification.tensors import Comparison

_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Change:
    """How some tensors differ together.

    ``tensors`` counts those that both sides have. ``differing`` are those of them that differ or could not be compared.
    ``mismatched`` are those that could not. ``l2`` is the L2 distance over those that could. ``norm`` is the L2 norm,
    on the left side, of those that differ. ``largest`` is the largest difference of two elements.
    """

    tensors: int
    differing: int
    mismatched: int
    l2: float
    norm: float
    largest: float

    @property
    def relative(self) -> float:
        """The L2 distance in units of the norm of the tensors that differ; NaN if none of them could be measured."""
        is_measured = not self.differing or self.differing > self.mismatched
        return relative(self.l2, self.norm) if is_measured else nan

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {
            "tensors": self.tensors,
            "differing": self.differing,
            "mismatched": self.mismatched,
            "l2": as_number(self.l2),
            "relative_l2": as_number(self.relative),
            "largest": as_number(self.largest),
        }


def by_component(found: Comparison) -> dict[tuple[str, str], Change]:
    """The changes by component and group, in the order of a model; the group "" stands for a whole component."""
    places = _grouped(found, place_of)
    ordered: dict[tuple[str, str], Change] = {}
    for component in COMPONENTS:
        for group in ("", *(group for group in GROUPS if group)):
            some = [change for place, change in places.items() if _is_in(place, component, group)]
            if some:
                ordered[component, group] = _together(some)
    return ordered


def by_place(found: Comparison) -> dict[Place, Change]:
    """The changes by component, group and layer, in the order of a model."""
    places = _grouped(found, place_of)
    return {place: places[place] for place in sorted(places, key=_position)}


def _position(place: Place) -> tuple[int, int, int]:
    return COMPONENTS.index(place.component), GROUPS.index(place.group), -1 if place.layer is None else place.layer


def by_group(found: Comparison, sort: Sort = "relative") -> dict[str, Change]:
    """The changes of tensors whose keys differ in the numbers of layers and experts only, where any was measured."""
    measured = {numberless(difference.key) for difference in found.differences}
    groups = {name: change for name, change in _grouped(found, numberless).items() if name in measured}
    names = sorted(groups)
    return {name: groups[name] for name in in_order(names, groups.__getitem__, sort)}


def in_order(
    names: Iterable[_Name], change_of: Callable[[_Name], Change | TensorDifference], sort: Sort
) -> list[_Name]:
    """``names`` by the names themselves, or by a number of what ``change_of`` says of them, the largest first."""
    if sort == "name":
        return [*names]
    return sorted(names, key=lambda name: rank(getattr(change_of(name), sort)), reverse=True)


def by_layer(found: Comparison) -> dict[str, list[float]]:
    """The relative L2 distance of each layer, by component; a layer that is not there has not changed."""
    layers: dict[str, dict[int, list[Change]]] = {TOWER: {}, TEXT: {}}
    for place, change in _grouped(found, place_of).items():
        if place.layer is not None and place.component in layers:
            layers[place.component].setdefault(place.layer, []).append(change)
    return {
        component: [_together(some.get(layer, ())).relative for layer in range(max(some) + 1)]
        for component, some in layers.items()
        if some
    }


def most_changed(layers: Sequence[float]) -> int:
    """Which of ``layers`` has the largest distance."""
    return max(range(len(layers)), key=lambda layer: rank(layers[layer]))


def rank(value: float) -> float:
    """What cannot be measured comes first: it is the most suspicious."""
    return inf if isnan(value) else value


def changes_as_json(found: Comparison) -> dict[str, Any]:
    """All changes as values that :func:`json.dumps` takes."""
    return {
        "components": [
            {"component": component, "group": group or None, **change.as_json()}
            for (component, group), change in by_component(found).items()
        ],
        "places": [
            {"component": place.component, "group": place.group or None, "layer": place.layer, **change.as_json()}
            for place, change in by_place(found).items()
        ],
        "groups": {name: change.as_json() for name, change in by_group(found).items()},
        "layers": {name: [*map(as_number, values)] for name, values in by_layer(found).items()},
    }


def _grouped(found: Comparison, name_of: Callable[[str], _Name]) -> dict[_Name, Change]:
    """The changes of the tensors that both sides have, by the name that their keys get."""
    keys: dict[_Name, list[str]] = {}
    measured = {difference.key: difference for difference in found.differences}
    for key in (*found.equal, *measured, *found.mismatched):
        keys.setdefault(name_of(key), []).append(key)
    return {name: _change(some, measured, found.mismatched) for name, some in keys.items()}


def _is_in(place: Place, component: str, group: str) -> bool:
    return place.component == component and group in {"", place.group}


def _together(changes: Iterable[Change]) -> Change:
    """The changes of several sets of tensors as one."""
    some = [*changes]
    return Change(
        tensors=sum(change.tensors for change in some),
        differing=sum(change.differing for change in some),
        mismatched=sum(change.mismatched for change in some),
        l2=norm_of(change.l2 for change in some),
        norm=norm_of(change.norm for change in some),
        largest=_largest(change.largest for change in some),
    )


def _largest(values: Iterable[float]) -> float:
    some = [*values]
    return nan if any(map(isnan, some)) else max(some, default=0.0)


def _change(keys: Sequence[str], measured: Mapping[str, TensorDifference], mismatched: Container[str]) -> Change:
    differences = [measured[key] for key in keys if key in measured]
    unmeasured = sum(key in mismatched for key in keys)
    return Change(
        tensors=len(keys),
        differing=len(differences) + unmeasured,
        mismatched=unmeasured,
        l2=norm_of(difference.l2 for difference in differences),
        norm=norm_of(difference.norm for difference in differences),
        largest=_largest(difference.largest for difference in differences),
    )
