"""Transforms: what corresponds to what, described once and walked in both directions.

``forward`` turns custom tensors into HF tensors and ``inverse`` undoes it; both take only keys that
the transform claims (see :mod:`internvl_bridge.mapping.make_plan`) and return recipes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Protocol

from internvl_bridge.errors import ContradictionError, IncompleteGroupError, OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.patterns import Bindings, KeyPattern
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, joined, whole
from internvl_bridge.mapping.qkv_layouts import Layout

Specs = Mapping[str, TensorSpec]
Recipes = dict[str, Recipe]
Spell = Callable[[KeyPattern], KeyPattern]


class Transform(Protocol):
    """Relates a group of custom keys to a group of HF keys."""

    @property
    def custom_patterns(self) -> tuple[KeyPattern, ...]:
        """The custom keys that this transform claims."""

    @property
    def hf_patterns(self) -> tuple[KeyPattern, ...]:
        """The HF keys that this transform claims."""

    def spelled(self, spell: Spell) -> "Transform":
        """The same transform with its HF keys spelled otherwise."""

    def forward(self, specs: Specs) -> Recipes:
        """Recipes of the HF tensors, from the specs of claimed custom tensors."""

    def inverse(self, specs: Specs) -> Recipes:
        """Recipes of the custom tensors, from the specs of claimed HF tensors."""

    def forward_group(self, key: str) -> tuple[str, ...]:
        """All custom keys that :meth:`forward` needs together with the claimed ``key``, itself included."""

    def inverse_group(self, key: str) -> tuple[str, ...]:
        """All HF keys that :meth:`inverse` needs together with the claimed ``key``, itself included."""


@dataclass(frozen=True, slots=True)
class Rename:
    """One custom tensor is one HF tensor, under another name (or the same)."""

    custom: KeyPattern
    hf: KeyPattern

    @property
    def custom_patterns(self) -> tuple[KeyPattern, ...]:
        return (self.custom,)

    @property
    def hf_patterns(self) -> tuple[KeyPattern, ...]:
        return (self.hf,)

    def spelled(self, spell: Spell) -> "Rename":
        return replace(self, hf=spell(self.hf))

    def forward(self, specs: Specs) -> Recipes:
        return _renamed(specs, self.custom, self.hf)

    def inverse(self, specs: Specs) -> Recipes:
        return _renamed(specs, self.hf, self.custom)

    def forward_group(self, key: str) -> tuple[str, ...]:
        return (key,)

    def inverse_group(self, key: str) -> tuple[str, ...]:
        return (key,)


@dataclass(frozen=True, slots=True)
class Fuse:
    """One custom tensor holds several HF tensors, in blocks of rows (of dimension 0).

    ``parts`` are the keys of the HF tensors by the role that ``layout`` gives them.
    """

    fused: KeyPattern
    parts: Mapping[str, KeyPattern]
    layout: Layout

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def custom_patterns(self) -> tuple[KeyPattern, ...]:
        return (self.fused,)

    @property
    def hf_patterns(self) -> tuple[KeyPattern, ...]:
        return tuple(self.parts.values())

    def spelled(self, spell: Spell) -> "Fuse":
        return replace(self, parts={role: spell(part) for role, part in self.parts.items()})

    def forward(self, specs: Specs) -> Recipes:
        recipes: Recipes = {}
        for key, spec in specs.items():
            bindings = self.fused.match(key) or {}
            runs: dict[str, list[Run]] = {role: [] for role in self.parts}
            for role, start, stop in self._blocks(key, spec):
                runs[role].append(Run(key, start, stop))
            width = prod(spec.shape[1:])
            for role, pattern in self.parts.items():
                rows = sum(run.stop - run.start for run in runs[role]) // width
                part = TensorSpec(spec.dtype, (rows, *spec.shape[1:]))
                recipes[pattern.format(bindings)] = Recipe(part, joined(runs[role]))
        return recipes

    def inverse(self, specs: Specs) -> Recipes:
        groups: dict[str, dict[str, str]] = {}
        for key in specs:
            for role, pattern in self.parts.items():
                bindings = pattern.match(key)
                if bindings is not None:
                    groups.setdefault(self.fused.format(bindings), {})[role] = key
        return {key: self._fused_recipe(key, parts, specs) for key, parts in groups.items()}

    def forward_group(self, key: str) -> tuple[str, ...]:
        return (key,)

    def inverse_group(self, key: str) -> tuple[str, ...]:
        bindings = next(bindings for part in self.parts.values() if (bindings := part.match(key)) is not None)
        return tuple(part.format(bindings) for part in self.parts.values())

    def _fused_recipe(self, fused: str, keys: Mapping[str, str], specs: Specs) -> Recipe:
        missing = [
            pattern.format(self.fused.match(fused) or {}) for role, pattern in self.parts.items() if role not in keys
        ]
        if missing:
            raise IncompleteGroupError(
                f"{', '.join(missing)} is missing, but {', '.join(sorted(keys.values()))} is there; "
                f"{fused} is made of all {len(self.parts)} together.",
                "The checkpoint is incomplete: save or download it again.",
            )
        parts = {role: specs[keys[role]] for role in self.parts}
        kinds = {(part.dtype, part.shape[1:]) for part in parts.values()}
        if len(kinds) != 1 or not all(part.shape for part in parts.values()):
            listed = ", ".join(f"{keys[role]} {part.dtype} {list(part.shape)}" for role, part in parts.items())
            raise ContradictionError(
                f"{fused} cannot be made of tensors of different dtypes or widths: {listed}.",
                "Save the checkpoint again with one dtype for all of them.",
            )
        [(dtype, width)] = kinds
        spec = TensorSpec(dtype, (sum(part.shape[0] for part in parts.values()), *width))
        taken = dict.fromkeys(parts, 0)
        runs = []
        for role, start, stop in self._blocks(fused, spec):
            length = stop - start
            runs.append(Run(keys[role], taken[role], taken[role] + length))
            taken[role] += length
        for role, part in parts.items():
            if taken[role] != part.elements:
                raise ContradictionError(
                    f"{keys[role]} has shape {list(part.shape)}, which is not its share of {fused} {list(spec.shape)}.",
                    "Check the head counts in config.json, or save the checkpoint again.",
                )
        return Recipe(spec, joined(runs))

    def _blocks(self, key: str, spec: TensorSpec) -> Iterator[tuple[str, int, int]]:
        """``(role, start, stop)`` of each block, in elements of the fused tensor."""
        blocks = self.layout.blocks(spec.shape[0]) if spec.shape and spec.elements else None
        if blocks is None:
            raise ContradictionError(
                f"{key} has shape {list(spec.shape)}, which {self.layout} cannot divide.",
                "Check the head counts in config.json, or save the checkpoint again.",
            )
        width, position = prod(spec.shape[1:]), 0
        for role, rows in blocks:
            yield role, position, position + rows * width
            position += rows * width


@dataclass(frozen=True, slots=True)
class Stack:
    """The custom tensors of all experts of a layer are one HF tensor.

    ``parts`` are the keys of one expert's tensors ``[M, H]``. The stacked tensor ``[experts, parts * M, H]`` holds
    their rows in this order. Where ``experts`` is None, there are as many as there are tensors.
    """

    parts: tuple[KeyPattern, ...]
    stacked: KeyPattern
    experts: int | None

    @property
    def custom_patterns(self) -> tuple[KeyPattern, ...]:
        return self.parts

    @property
    def hf_patterns(self) -> tuple[KeyPattern, ...]:
        return (self.stacked,)

    def spelled(self, spell: Spell) -> "Stack":
        return replace(self, stacked=spell(self.stacked))

    def forward(self, specs: Specs) -> Recipes:
        stacks: dict[str, list[str]] = {}
        for key in specs:
            stacks.setdefault(self.stacked.format(self._bindings(key)), []).append(key)
        return {stacked: self._stacked_recipe(stacked, group, specs) for stacked, group in stacks.items()}

    def inverse(self, specs: Specs) -> Recipes:
        recipes: Recipes = {}
        for key, spec in specs.items():
            rows, rest = divmod(spec.shape[1], len(self.parts)) if len(spec.shape) == 3 else (0, 1)
            if rest or not spec.elements or spec.shape[0] != (self.experts or spec.shape[0]):
                count = f"each of {self.experts} experts" if self.experts else "each expert"
                raise ContradictionError(
                    f"{key} has shape {list(spec.shape)}, which is not that of {len(self.parts)} matrices for {count}.",
                    "Check num_experts in config.json, or save the checkpoint again.",
                )
            matrix = TensorSpec(spec.dtype, (rows, spec.shape[2]))
            for number, part in enumerate(self._keys(self.stacked.match(key) or {}, spec.shape[0])):
                start = number * matrix.elements
                recipes[part] = Recipe(matrix, (Run(key, start, start + matrix.elements),))
        return recipes

    def forward_group(self, key: str) -> tuple[str, ...]:
        if self.experts is None:
            raise OptionError(
                f"{key} is one of several experts, and nothing shows how many there are.",
                "Pass the contents of the model's config.json as config.",
            )
        self._check_number(key, self.experts)
        return tuple(self._keys(self._bindings(key), self.experts))

    def inverse_group(self, key: str) -> tuple[str, ...]:
        return (key,)

    def _bindings(self, key: str) -> Bindings:
        return next(bindings for part in self.parts if (bindings := part.match(key)) is not None)

    def _keys(self, bindings: Bindings, experts: int) -> Iterator[str]:
        """The custom keys of a layer, in the order in which their elements are stacked."""
        for expert in range(experts):
            for part in self.parts:
                yield part.format({**bindings, "expert": str(expert)})

    def _check_number(self, key: str, experts: int) -> None:
        if int(self._bindings(key)["expert"]) >= experts:
            raise ContradictionError(
                f"{key} is there, but config.json says that num_experts is {experts}.",
                "Use the config.json that this checkpoint was saved with.",
            )

    def _stacked_recipe(self, stacked: str, group: Sequence[str], specs: Specs) -> Recipe:
        experts = self.experts or 1 + max(int(self._bindings(key)["expert"]) for key in group)
        for key in group:
            self._check_number(key, experts)
        bindings = self._bindings(group[0])
        missing = next((key for key in self._keys(bindings, experts) if key not in specs), None)
        if missing is not None:
            raise IncompleteGroupError(
                f"{missing} is missing; {stacked} is made of {len(self.parts)} tensors of each of {experts} experts.",
                "Check num_experts in config.json. If it is right the checkpoint is incomplete: save it again.",
            )
        keys = tuple(self._keys(bindings, experts))
        first = specs[keys[0]]
        odd = next((key for key in keys if specs[key] != first or len(first.shape) != 2), None)
        if odd is not None:
            raise ContradictionError(
                f"{stacked} cannot be made of tensors of different dtypes or shapes: {keys[0]} {first.dtype} "
                f"{list(first.shape)}, {odd} {specs[odd].dtype} {list(specs[odd].shape)}.",
                "Save the checkpoint again with one dtype for all of them.",
            )
        rows, width = first.shape
        spec = TensorSpec(first.dtype, (experts, len(self.parts) * rows, width))
        return Recipe(spec, tuple(Run(key, 0, first.elements) for key in keys))


def source_patterns(wanted: Format, transform: Transform) -> tuple[KeyPattern, ...]:
    """The keys that ``transform`` claims on the way into the format ``wanted``."""
    return transform.custom_patterns if wanted is Format.HF else transform.hf_patterns


def recipes_into(wanted: Format, transform: Transform, specs: Specs) -> Recipes:
    """The tensors of the format ``wanted`` that ``transform`` makes of claimed ones."""
    return transform.forward(specs) if wanted is Format.HF else transform.inverse(specs)


def group_into(wanted: Format, transform: Transform, key: str) -> tuple[str, ...]:
    """The keys that ``transform`` needs together with the claimed ``key``, on the way into ``wanted``."""
    return transform.forward_group(key) if wanted is Format.HF else transform.inverse_group(key)


def _renamed(specs: Specs, old: KeyPattern, new: KeyPattern) -> Recipes:
    if old == new:  # most tensors of most models: no second copy of every key
        return {key: whole(key, spec) for key, spec in specs.items()}
    return {new.format(old.match(key) or {}): whole(key, spec) for key, spec in specs.items()}
