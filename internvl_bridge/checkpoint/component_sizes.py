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
    members: dict[tuple[str, str | None], Counter[tuple[int | None, TensorSpec]]] = {}
    for (place, spec), count in Counter((place_of(key), spec) for key, spec in specs.items()).items():
        for name in ((place.component, None), (place.component, place.group)):
            members.setdefault(name, Counter())[place.layer, spec] += count
    order = [(component, group) for component in COMPONENTS for group in (None, *GROUPS) if group != ""]
    return tuple(_size(name, members[name]) for name in order if name in members)


def _size(name: tuple[str, str | None], members: Counter[tuple[int | None, TensorSpec]]) -> ComponentSize:
    """The size of what has so many tensors of each layer and spec."""
    dtypes: Counter[str] = Counter()
    for (_, spec), count in members.items():
        dtypes[spec.dtype] += count * spec.elements
    return ComponentSize(
        *name,
        layers=len({layer for layer, _ in members} - {None}),
        tensors=members.total(),
        parameters=dtypes.total(),
        bytes=sum(count * DTYPE_BITS[dtype] // 8 for dtype, count in dtypes.items()),
        dtypes=dict(dtypes.most_common()),
    )
