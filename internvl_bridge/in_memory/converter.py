"""Convert the tensors of one model again and again: plan once, and replay the plan."""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from internvl_bridge.convert.options import ExpertsOption, Layout, Options, Tied, check_options, wanted_format
from internvl_bridge.errors import ContradictionError, DuplicateKeyError, MissingKeyError, UnknownKeyError, first_few
from internvl_bridge.in_memory.planned_tensors import StateDict, clean_keys, gathered, planned, same_bits_in
from internvl_bridge.mapping.plan import Recipe

NamedTensors = Iterable[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor that is expected: what it has to be, its key in the plan, and what is made of it.

    ``alone`` are targets that need nothing else. ``shared`` are those that wait for others, with the number of tensors
    that each needs.
    """

    key: str
    dtype: torch.dtype
    shape: torch.Size
    alone: tuple[tuple[str, Recipe], ...]
    shared: tuple[tuple[str, int], ...]


class Converter:
    """Converts the tensors of one model again and again, as a trainer sends them to a serving engine after each step.

    It plans once, from what the tensors are. Each pass replays the plan: names, shapes and dtypes that differ from the
    plan's are refused. What is moved for weights is moved for anything of their shapes: :meth:`of_dtype` gives a
    converter of differences, or of an optimizer's moments.

    Args:
        direction: "to-hf" or "to-custom".
        specs: A state dict of the model in the other format. Tensors on the meta device are enough. They are not if a
            tied model stores a copy of its embeddings as output head: only values show that.
        config: The contents of config.json, of either format, as for :func:`internvl_bridge.convert_state_dict`.
        layout: As for :func:`internvl_bridge.convert_state_dict`.
        experts: As for :func:`internvl_bridge.convert_state_dict`.
        tied: As for :func:`internvl_bridge.convert_state_dict`.

    Raises:
        OptionError: An argument cannot be used.
        TensorError: A key is unknown, missing, or of another shape or dtype than config.json or its group.
        UnsupportedModelError: ``config`` describes a model that has no counterpart in the other format.

    Example:
        >>> import torch
        >>> import internvl_bridge
        >>> converter = internvl_bridge.Converter("to-hf", specs={"mlp1.0.weight": torch.empty(2, device="meta")})
        >>> [(key, tensor.tolist()) for key, tensor in converter.stream([("mlp1.0.weight", torch.ones(2))])]
        [('multi_modal_projector.layer_norm.weight', [1.0, 1.0])]
    """

    __slots__ = ("_copies", "_left_out", "_recipes", "_sources")

    def __init__(
        self,
        direction: Literal["to-hf", "to-custom"],
        *,
        specs: StateDict,
        config: Mapping[str, Any] | None = None,
        layout: Layout = "l1",
        experts: ExpertsOption = "split",
        tied: Tied = "copy",
    ) -> None:
        wanted = wanted_format(direction)
        options = Options(layout=layout, experts=experts, tied=tied)
        check_options(options)
        names = clean_keys(specs.keys(), wanted.other)
        found = planned({name: specs[key] for key, name in names.items()}, wanted, options, config)
        self._recipes = found.plan.recipes
        self._copies = found.copies
        self._left_out = frozenset(specs.keys() - names.keys())
        self._sources = _sources(names, specs, self._recipes)

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
        for head, embeddings in self._copies.items():
            _check_copy(head, embeddings, come)
        return {key: gathered(recipe, come) for key, recipe in self._recipes.items()}

    def stream(self, named_tensors: NamedTensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Convert pairs in any order, and yield each target as soon as its sources have come.

        Holds copies of the tensors of open groups only, as :func:`internvl_bridge.iter_converted` does.

        Args:
            named_tensors: Keys and tensors, all those of the model. A producer may fill one buffer again and again.

        Yields:
            Keys and tensors of the other format.

        Raises:
            TensorError: Names, shapes or dtypes are not those of the plan, or a tensor never came.
        """
        seen: set[str] = set()
        waiting: dict[str, dict[str, torch.Tensor]] = {}
        kept: dict[str, torch.Tensor] = {}
        compared = {*self._copies, *self._copies.values()}
        for key, tensor in named_tensors:
            source = self._expected(key, tensor)
            if source is None:
                continue
            if source.key in seen:
                raise DuplicateKeyError(f"{key} came twice.", "Pass each tensor once.")
            seen.add(source.key)
            for target, recipe in source.alone:
                yield target, tensor if tensor.shape == recipe.spec.shape else gathered(recipe, {source.key: tensor})
            if source.shared:
                yield from self._grouped(source, tensor, waiting)
            if source.key in compared:
                kept[source.key] = tensor if tensor.is_meta else tensor.detach().clone()
            del tensor  # before the next one is asked for
        self._check_all_came(seen)
        for head, embeddings in self._copies.items():
            _check_copy(head, embeddings, kept)

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
                held = tensor if tensor.is_meta else tensor.detach().clone()
            come[source.key] = held

    def _expected(self, key: str, tensor: torch.Tensor) -> _Source | None:
        """What the plan says of the tensor ``key``; None if it is left out."""
        source = self._sources.get(key)
        if source is None:
            if key in self._left_out:
                return None
            raise UnknownKeyError(f"{key} was not there when this Converter planned.", _PLAN_ANEW)
        if tensor.dtype is not source.dtype or tensor.shape != source.shape:
            raise ContradictionError(
                f"{key} is {tensor.dtype} {list(tensor.shape)} now, and was {source.dtype} {list(source.shape)} when "
                f"this Converter planned.",
                _PLAN_ANEW,
            )
        return source

    def _check_all_came(self, come: Iterable[str]) -> None:
        names = {source.key: key for key, source in self._sources.items()}
        if missing := [names[name] for name in names.keys() - {*come}]:
            raise MissingKeyError(f"{first_few(sorted(missing))} never came.", "Pass all tensors of the model.")


_PLAN_ANEW = "Make a new Converter of the tensors as they are now."


def _check_copy(head: str, embeddings: str, come: StateDict) -> None:
    """Refuse an output head that the plan leaves out as a copy of the embeddings, if it has become another tensor."""
    if not same_bits_in(come)(head, embeddings):
        raise ContradictionError(
            f"{head} was a copy of {embeddings} when this Converter planned, and differs from them now.", _PLAN_ANEW
        )


def _sources(names: Mapping[str, str], specs: StateDict, recipes: Mapping[str, Recipe]) -> dict[str, _Source]:
    """What is expected under each key of ``specs``, whose keys in the plan are ``names``."""
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
        key: _Source(name, specs[key].dtype, specs[key].shape, tuple(alone.get(name, ())), tuple(shared.get(name, ())))
        for key, name in names.items()
    }
