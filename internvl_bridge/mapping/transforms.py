"""Transforms: what corresponds to what, described once and walked in both directions.

``forward`` turns custom tensors into HF tensors and ``inverse`` undoes it; both take only keys that
the transform claims (see :mod:`internvl_bridge.mapping.planning`) and return recipes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Protocol

from internvl_bridge.errors import ContradictionError, IncompleteGroupError
from internvl_bridge.mapping.layouts import Layout
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, joined, whole

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


def _renamed(specs: Specs, old: KeyPattern, new: KeyPattern) -> Recipes:
    if old == new:  # most tensors of most models: no second copy of every key
        return {key: whole(key, spec) for key, spec in specs.items()}
    return {new.format(old.match(key) or {}): whole(key, spec) for key, spec in specs.items()}
