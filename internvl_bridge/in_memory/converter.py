"""Convert the tensors of one model again and again: plan once, and replay the plan."""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from internvl_bridge.convert.options import ExpertsOption, Layout, Options, Tied, check_options, wanted_format
from internvl_bridge.errors import (
    ContradictionError,
    DuplicateKeyError,
    MissingKeyError,
    OptionError,
    UnknownKeyError,
    first_few,
)
from internvl_bridge.in_memory.planned_tensors import (
    StateDict,
    clean_keys,
    gathered,
    kept,
    planned,
    planned_from_config,
    same_bits_in,
)
from internvl_bridge.mapping.plan import Recipe
from internvl_bridge.mapping.wrapped_names import is_buffer

NamedTensors = Iterable[tuple[str, torch.Tensor]]
_Kind = tuple[torch.dtype | None, tuple[int, ...]]
"""The dtype and shape of a tensor that is expected; any dtype if None."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor that is expected: its key in the plan, what it has to be, and what is made of it.

    ``alone`` are targets that need nothing else. ``shared`` are those that wait for others, with the number of tensors
    that each needs.
    """

    key: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    alone: tuple[tuple[str, Recipe], ...]
    shared: tuple[tuple[str, int], ...]


class Converter:
    """Converts the tensors of one model again and again, as a trainer sends them to a serving engine after each step.

    It plans once, from what the tensors are, or from the config alone. Each pass replays the plan: names, shapes and
    dtypes that differ from the plan's are refused. What is moved for weights is moved for anything of their shapes:
    :meth:`of_dtype` gives a converter of differences, or of an optimizer's moments.

    With ``config`` alone, the plan is for all tensors that it describes, under plain names and not quantised. Their
    dtypes may be any. Those that become one tensor have to agree, and :meth:`of_dtype` asks for one dtype of all.

    Where the plan takes the output head of a tied model for a copy of the embeddings, it may come or not. If it comes,
    each pass compares it with them. Buffers that config.json determines are left out.

    Args:
        direction: "to-hf" or "to-custom".
        specs: A state dict of the model in the other format. Tensors on the meta device are enough. They are not if a
            tied model stores a copy of its embeddings as output head: only values show that. Needed without ``config``,
            and for names of training wrappers, quantised weights, and the other variant of InternLM3.
        config: The contents of config.json, of either format, as for :func:`internvl_bridge.convert_state_dict`.
            Needed without ``specs``.
        layout: As for :func:`internvl_bridge.convert_state_dict`. With ``config`` alone, HF's keys begin so in either
            direction: "l2" for ``model.state_dict()``.
        experts: As for :func:`internvl_bridge.convert_state_dict`. With ``config`` alone, HF's keys hold them so in
            either direction.
        tied: As for :func:`internvl_bridge.convert_state_dict`.

    Raises:
        OptionError: An argument cannot be used, or there are neither ``specs`` nor ``config``.
        TensorError: A key is unknown, missing, or of another shape or dtype than config.json or its group.
        UnsupportedModelError: ``config`` describes a model that has no counterpart in the other format.

    Example:
        >>> import torch
        >>> import internvl_bridge
        >>> converter = internvl_bridge.Converter("to-hf", specs={"mlp1.0.weight": torch.empty(2, device="meta")})
        >>> [(key, tensor.tolist()) for key, tensor in converter.stream([("mlp1.0.weight", torch.ones(2))])]
        [('multi_modal_projector.layer_norm.weight', [1.0, 1.0])]
    """

    __slots__ = ("_copies", "_recipes", "_remedy", "_sources")

    def __init__(
        self,
        direction: Literal["to-hf", "to-custom"],
        *,
        specs: StateDict | None = None,
        config: Mapping[str, Any] | None = None,
        layout: Layout = "l1",
        experts: ExpertsOption = "split",
        tied: Tied = "copy",
    ) -> None:
        wanted = wanted_format(direction)
        options = Options(layout=layout, experts=experts, tied=tied)
        check_options(options)
        kinds: dict[str, _Kind]
        if specs is not None:
            names = clean_keys(specs.keys(), wanted.other)
            found = planned({name: specs[key] for key, name in names.items()}, wanted, options, config)
            kinds = {key: (specs[key].dtype, specs[key].shape) for key in names}
            self._remedy = "Make a new Converter of the tensors as they are now."
        elif config is not None:
            found = planned_from_config(config, wanted, options)
            kinds = {key: (None, spec.shape) for key, spec in found.plan.sources.items()}
            kinds |= {head: kinds[embeddings] for head, embeddings in found.copies.items()}
            names = {key: key for key in kinds}
            self._remedy = (
                "Pass the config, layout and experts that go with these tensors, or specs, the tensors themselves."
            )
        else:
            raise OptionError(
                "A Converter needs specs or config.", "Pass config=model.config.to_dict() or specs=model.state_dict()."
            )
        self._recipes = found.plan.recipes
        self._copies = found.copies
        self._sources = _sources(names, kinds, self._recipes)

    def of_dtype(self, dtype: torch.dtype) -> "Converter":
        """The converter of tensors of the same names and shapes, all of which have this ``dtype``."""
        other = copy(self)
        sources = {key: replace(source, dtype=dtype) for key, source in self._sources.items()}
        other._sources = sources  # noqa: SLF001 (of this class)
        return other

    def convert(self, tensors: StateDict) -> dict[str, torch.Tensor]:
        """Convert a state dict: as :func:`internvl_bridge.convert_state_dict`, by the plan that there is.

        Args:
            tensors: All tensors of the model, on whatever devices.

        Returns:
            The tensors of the other format. They are views where a target is one run of elements.

        Raises:
            TensorError: Names, shapes or dtypes are not those of the plan.
        """
        come: dict[str, torch.Tensor] = {}
        for key, tensor in tensors.items():
            source = self._expected(key, tensor)
            if source is not None:
                come[source.key] = tensor
        self._check_all_came(come)
        self._check_copies(come)
        return {key: gathered(recipe, come) for key, recipe in self._recipes.items()}

    def stream(self, named_tensors: NamedTensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Convert pairs in any order, and yield each target as soon as its sources have come.

        Holds copies of the tensors of open groups only, as :func:`internvl_bridge.iter_converted` does. Where a head
        that copies the embeddings may come, whichever of the two comes first is held until the other does.

        Args:
            named_tensors: Keys and tensors, all those of the model. A producer may fill one buffer again and again.

        Yields:
            Keys and tensors of the other format.

        Raises:
            TensorError: Names, shapes or dtypes are not those of the plan, or a tensor never came.
        """
        seen: set[str] = set()
        waiting: dict[str, dict[str, torch.Tensor]] = {}
        pair: dict[str, torch.Tensor] = {}
        compared = {*self._copies, *self._copies.values()}
        for key, tensor in named_tensors:
            source = self._expected(key, tensor)
            if source is None:
                continue
            if source.key in seen:
                raise DuplicateKeyError(f"{key} came twice.", "Pass each tensor once.")
            seen.add(source.key)
            if source.key in compared:
                pair[source.key] = tensor if pair else kept(tensor)
                self._check_copies(pair)
                if len(pair) == len(compared):
                    pair.clear()
            for target, recipe in source.alone:
                yield target, tensor if tensor.shape == recipe.spec.shape else gathered(recipe, {source.key: tensor})
            if source.shared:
                yield from self._grouped(source, tensor, waiting)
            del tensor  # before the next one is asked for
        self._check_all_came(seen)

    def _grouped(
        self, source: _Source, tensor: torch.Tensor, waiting: dict[str, dict[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The targets that were ``waiting`` for this ``tensor`` alone; the others keep a copy of it."""
        held: torch.Tensor | None = None
        for target, count in source.shared:
            come = waiting.setdefault(target, {})
            if len(come) + 1 == count:
                del waiting[target]
                yield target, gathered(self._recipes[target], {**come, source.key: tensor})
                continue
            if held is None:
                held = kept(tensor)
            come[source.key] = held

    def _expected(self, key: str, tensor: torch.Tensor) -> _Source | None:
        """What the plan says of the tensor ``key``; None if it is left out."""
        source = self._sources.get(key)
        if source is None:
            if is_buffer(key):
                return None
            raise UnknownKeyError(f"{key} is not a tensor that this Converter has planned.", self._remedy)
        dtype = source.dtype or tensor.dtype
        if tensor.dtype is not dtype or tensor.shape != source.shape:
            raise ContradictionError(
                f"{key} is {tensor.dtype} {list(tensor.shape)}, but this Converter has planned {dtype} "
                f"{list(source.shape)}.",
                self._remedy,
            )
        return source

    def _check_all_came(self, come: Iterable[str]) -> None:
        names = {source.key: key for key, source in self._sources.items() if source.key not in self._copies}
        if missing := [names[name] for name in names.keys() - {*come}]:
            raise MissingKeyError(f"{first_few(sorted(missing))} never came.", "Pass all tensors of the model.")

    def _check_copies(self, come: StateDict) -> None:
        """Refuse an output head that the plan leaves out as a copy of the embeddings, if it is another tensor."""
        for head, embeddings in self._copies.items():
            if {head, embeddings} <= come.keys() and not same_bits_in(come)(head, embeddings):
                raise ContradictionError(
                    f"{head} differs from {embeddings}, but this Converter has planned it as a copy of them.",
                    self._remedy,
                )


def _sources(names: Mapping[str, str], kinds: Mapping[str, _Kind], recipes: Mapping[str, Recipe]) -> dict[str, _Source]:
    """What is expected under each key of ``kinds``, whose keys in the plan are ``names``."""
    alone: dict[str, list[tuple[str, Recipe]]] = {}
    shared: dict[str, list[tuple[str, int]]] = {}
    for target, recipe in recipes.items():
        needed = dict.fromkeys(run.key for run in recipe.runs)
        if len(needed) == 1:
            alone.setdefault(next(iter(needed)), []).append((target, recipe))
        else:
            for key in needed:
                shared.setdefault(key, []).append((target, len(needed)))
    return {
        key: _Source(name, *kinds[key], tuple(alone.get(name, ())), tuple(shared.get(name, ())))
        for key, name in names.items()
    }
