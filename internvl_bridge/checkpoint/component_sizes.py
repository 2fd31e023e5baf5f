"""What each component of a checkpoint holds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.mapping.components import COMPONENTS, GROUPS, place_of
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.storage.header import DTYPE_BITS


@dataclass(frozen=True, slots=True)
class ComponentSize:
    """How many tensors, elements and bytes a component has, or one group of its tensors.

    ``component`` is for instance "vision tower", ``group`` "attention"; None for the whole component. ``layers``
    counts those that hold such tensors. ``dtypes`` counts elements by safetensors dtype.
    """

    component: str
    group: str | None
    layers: int
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]


def component_sizes(specs: Mapping[str, TensorSpec]) -> tuple[ComponentSize, ...]:
    """The sizes of all components of a model with the tensors ``specs``, each followed by those of its groups."""
    places = {key: place_of(key) for key in specs}
    members: dict[tuple[str, str | None], dict[str, TensorSpec]] = {}
    for key, place in places.items():
        for name in ((place.component, None), (place.component, place.group)):
            members.setdefault(name, {})[key] = specs[key]
    order = [(component, group) for component in COMPONENTS for group in (None, *GROUPS) if group != ""]
    found = [(name, members[name]) for name in order if name in members]
    return tuple(_size(name, some, {places[key].layer for key in some}) for name, some in found)


def _size(name: tuple[str, str | None], specs: Mapping[str, TensorSpec], layers: set[int | None]) -> ComponentSize:
    dtypes: Counter[str] = Counter()
    for spec in specs.values():
        dtypes[spec.dtype] += spec.elements
    return ComponentSize(
        *name,
        layers=len(layers - {None}),
        tensors=len(specs),
        parameters=dtypes.total(),
        bytes=sum(count * DTYPE_BITS[dtype] // 8 for dtype, count in dtypes.items()),
        dtypes=dict(dtypes.most_common()),
    )
