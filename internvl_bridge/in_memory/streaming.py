"""Convert tensors one by one as they come, for trainers that push weights into a serving engine."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from internvl_bridge.convert.options import ExpertsOption, Layout, Options, Tied, check_options, wanted_format
from internvl_bridge.errors import DuplicateKeyError, IncompleteGroupError, MixedSpellingError, first_few
from internvl_bridge.in_memory.planned_tensors import described_by, gathered, kept, same_bits_in, spec_of
from internvl_bridge.mapping.families import families_of
from internvl_bridge.mapping.family_from_keys import ambiguous, check_guessable, guessable_models, possible_routes
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import RowLookup, explain_unknown_keys
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route
from internvl_bridge.mapping.several_models import IsModel, model_keys_in
from internvl_bridge.mapping.spellings import CUSTOM, KeySpelling, chosen_spelling, spelling_in
from internvl_bridge.mapping.tied_head import TiedHead, tied_head
from internvl_bridge.mapping.transforms import Transform, group_into, recipes_into
from internvl_bridge.mapping.wrapped_names import clean_name, is_buffer, prefix_of
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.planning.checked_plan import check_config, checked_plan
from internvl_bridge.planning.output_head import OutputHead, output_head

NamedTensors = Iterable[tuple[str, torch.Tensor]]


def iter_converted(
    named_tensors: NamedTensors,
    direction: Literal["to-hf", "to-custom"],
    *,
    config: Mapping[str, Any] | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    tied: Tied = "copy",
) -> Iterator[tuple[str, torch.Tensor]]:
    """Convert ``(key, tensor)`` pairs in any order, and yield each target as soon as its sources have come.

    Holds copies of the tensors of open groups only: a query that waits for its key and value, experts that wait for
    the others of their layer. Of a model that config.json calls tied, it also holds a copy of the embeddings. So
    ``named_tensors`` may fill one buffer again and again. What leaves at once is not copied: it is valid until the
    next pair is asked for, if the buffer is filled again then. If the first key has the prefix of a training wrapper,
    that is taken off all of them. Buffers that config.json determines are left out. Both come with a warning. A key
    that is not understood, or not spelled as those before it, is refused when it comes. With ``config``, a tensor that
    never came or has another shape is refused at the end. Without it, experts are refused if they come before any key
    that shows their family.

    Args:
        named_tensors: Keys and tensors of a model of the other format, on whatever device.
        direction: "to-hf" or "to-custom".
        config: The contents of config.json, of either format. Without it nothing is known to be tied, and InternLM2's
            fused projections cannot be split.
        layout: How HF keys begin: "l1" as every transformers from 4.52 on reads them, "l2" as in
            ``model.state_dict()``.
        experts: The experts of Qwen3-MoE: "split" into one tensor each, or "fused" into one for all of a layer, as
            transformers 5 has them in ``model.state_dict()``.
        tied: What becomes of a shared output head in the custom format: a "copy", or none ("keep").

    Yields:
        Keys and tensors in the format asked for, as :func:`internvl_bridge.convert_state_dict` returns them.

    Raises:
        OptionError: An argument cannot be used.
        TensorError: A key is unknown, missing, or of another shape or dtype than config.json or its group.
        UnsupportedModelError: ``config`` describes a model that has no counterpart in the other format.

    Example:
        >>> import torch
        >>> import internvl_bridge
        >>> pairs = internvl_bridge.iter_converted([("mlp1.0.weight", torch.ones(2))], "to-hf")
        >>> [(key, tensor.tolist()) for key, tensor in pairs]
        [('multi_modal_projector.layer_norm.weight', [1.0, 1.0])]
    """
    wanted = wanted_format(direction)
    options = Options(layout=layout, experts=experts, tied=tied)
    check_options(options)
    named_tensors = _clean(named_tensors, model_keys_in(wanted.other))
    if config is not None:
        return _described(named_tensors, config, wanted, options)
    target = chosen_spelling(wanted, options.layout, options.experts)
    return _converted(_guessable(named_tensors), list(possible_routes(target, guessable_models(target))), {})


def _described(
    named_tensors: NamedTensors, config: Mapping[str, Any], wanted: Format, options: Options
) -> Iterator[tuple[str, torch.Tensor]]:
    """The targets of a model that ``config`` describes, all of whose tensors have to come."""
    target = chosen_spelling(wanted, options.layout, options.experts)
    model = described_by(config, {})
    check_config(model)
    families = [model.family]
    if wanted is Format.HF:  # only keys show which of the families of one custom class it is
        families = families_of(model.family.architecture)
    routes = list(possible_routes(target, [(family, model.dims.text) for family in families]))
    seen: dict[str, TensorSpec] = {}
    made = _converted(named_tensors, routes, seen)
    yield from _with_head(made, model, target, options) if model.may_be_tied else made
    model = described_by(config, seen)
    checked_plan(model, seen, spelling_in(wanted.other, seen, model.family), target)


def _converted(
    named_tensors: NamedTensors, routes: Sequence[Route], seen: dict[str, TensorSpec]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The targets of the one of ``routes`` that explains all tensors; ``seen`` collects their specs."""
    wanted, rows = routes[0].target.format, _Rows(routes)
    waiting: dict[str, _Group] = {}
    for key, tensor in named_tensors:
        if key in seen:
            raise DuplicateKeyError(f"{key} came twice.", "Pass each tensor once.")
        row = rows.of(key, seen)
        seen[key] = spec_of(tensor)
        group = waiting.pop(key, None) or _Group(row, group_into(wanted, row, key))
        if len(group.come) + 1 < len(group.keys):
            group.come[key] = kept(tensor)
            waiting.update((other, group) for other in group.keys if other not in group.come)
        else:
            group.come[key] = tensor
            yield from _targets(group, wanted, seen)
        del group, tensor  # before the next one is asked for
    if waiting:
        raise _incomplete(waiting)


class _Rows:
    """Finds the row of each key, in the tables of those routes that explain every key so far."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._tables = [route.first_table for route in routes]
        self._lookups = [RowLookup(table, routes[0].target.format) for table in self._tables]
        self._possible = list(range(len(routes)))

    def of(self, key: str, seen: Collection[str]) -> Transform:
        """The row that claims ``key``, which comes after the keys ``seen``."""
        claims = {number: found[0] for number, lookup in enumerate(self._lookups) if (found := lookup.of(key))}
        self._possible = [number for number in self._possible if number in claims]
        if not self._possible:
            raise _unexpected(key, seen) if claims else explain_unknown_keys([key])
        rows = [self._tables[number][claims[number]] for number in self._possible]
        if len({type(row) for row in rows}) > 1:
            raise ambiguous(key)
        return rows[0]


@dataclass(slots=True)
class _Group:
    """Tensors that are converted together: all their keys, and those that have come."""

    row: Transform
    keys: tuple[str, ...]
    come: dict[str, torch.Tensor] = field(default_factory=dict)


def _targets(group: _Group, wanted: Format, seen: Mapping[str, TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
    """What a complete group becomes."""
    recipes = recipes_into(wanted, group.row, {key: seen[key] for key in group.keys})
    return ((target, gathered(recipe, group.come)) for target, recipe in recipes.items())


def _incomplete(waiting: Mapping[str, _Group]) -> IncompleteGroupError:
    come = next(iter(next(iter(waiting.values())).come))
    return IncompleteGroupError(
        f"{first_few(list(waiting))} never came, but {come} did, which cannot be converted without.",
        "Pass all tensors of the model.",
    )


def _clean(named_tensors: NamedTensors, is_model: IsModel) -> NamedTensors:
    """``named_tensors`` under the keys of a model: the first one shows what a wrapper has put before all of them."""
    prefix: str | None = None
    told: set[str] = set()
    for key, tensor in named_tensors:
        if is_buffer(key):
            _tell_once(told, "buffer", f"{key} is left out, as are other buffers: config.json determines them.")
            continue
        if prefix is None:
            prefix = prefix_of(key, is_model)
        name = clean_name(key, prefix)
        if name is None:
            raise MixedSpellingError(
                f"{key} does not begin with {prefix!r}, as the keys before it do.",
                "Pass the tensors of one state dict.",
            )
        if name != key:
            _tell_once(told, "name", f"{key} is converted as {name}, and keys like it alike.")
        yield name, tensor
        del tensor  # before the next one is asked for


def _tell_once(told: set[str], what: str, text: str) -> None:
    if what not in told:
        told.add(what)
        warnings.warn(text, stacklevel=2)


def _guessable(named_tensors: NamedTensors) -> NamedTensors:
    for key, tensor in named_tensors:
        check_guessable(key)
        yield key, tensor
        del tensor  # before the next one is asked for


def _unexpected(key: str, seen: Collection[str]) -> MixedSpellingError:
    return MixedSpellingError(
        f"{key} is not spelled as the tensors before it, such as {next(iter(seen))}.",
        "Pass the tensors of one state dict.",
    )


def _with_head(
    made: Iterator[tuple[str, torch.Tensor]], model: ModelDescription, target: KeySpelling, options: Options
) -> Iterator[tuple[str, torch.Tensor]]:
    """``made``, with or without an output head that is a copy of the input embeddings, as ``target`` has it."""
    tie = tied_head(model.family, model.dims.text, target)
    stores_copy = target == CUSTOM and options.tied != "keep"
    pair: dict[str, torch.Tensor] = {}
    for key, tensor in made:
        if key in (tie.head, tie.embeddings):
            is_last = bool(pair) or (stores_copy and key == tie.head)
            pair[key] = tensor if is_last else kept(tensor)
        if stores_copy or key != tie.head:
            yield key, tensor
        del tensor  # before the next one is asked for
        if len(pair) == 2 or (stores_copy and tie.head in pair):
            if not stores_copy and _head(tie, pair).is_stored(stores_copy=False):
                yield tie.head, pair[tie.head]
            pair.clear()
            yield from made
            return
    if stores_copy and pair:
        yield tie.head, pair[tie.embeddings]


def _head(tie: TiedHead, pair: Mapping[str, torch.Tensor]) -> OutputHead:
    """What the head among a head and the embeddings of a model that config.json calls tied is."""
    specs = {key: spec_of(tensor) for key, tensor in pair.items()}
    return output_head(tie, specs, same_bits_in(pair), may_be_tied=True)
