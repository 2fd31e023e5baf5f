"""Which keys are those of the model that is meant, where a dump holds several: a model and its average, two actors."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import LAYOUTS

IsModel = Callable[[Collection[str]], bool]
"""Whether keys are those of a model, and not of something that a trainer keeps beside it."""
TOP = "."
"""The name of a model whose keys have no prefix."""
_OF_OTHER_USE = re.compile("ema|avg|average|critic|ref|reward|teacher|target|old", re.IGNORECASE)
"""In names of models that are seldom the one that is meant."""

_CUSTOM_PREFIXES = ("vision_model.", "language_model.", "mlp1.")
_FIRST_SEGMENTS = frozenset(
    {"language_model", "vision_tower", "vision_model", "multi_modal_projector", "mlp1", "lm_head", "model"}
)
"""With which the keys of a model start: what stands before them may be a trainer's prefix."""


def model_keys_in(format_: Format) -> IsModel:
    """Separates the keys of a model in ``format_`` from those of what else trainers dump."""
    if format_ is Format.CUSTOM:
        return lambda keys: all(key.startswith(_CUSTOM_PREFIXES) for key in keys)
    return lambda keys: any(all(map(layout.explains, keys)) for layout in LAYOUTS)


def chosen_model(place: object, keys: Collection[str], is_model: IsModel, name: str | None) -> dict[str, str]:
    """Those of ``keys`` that are of the model called ``name``, with their names in it; without a name, the only model.

    All keys as they are if no prefix makes a model of them. Raises CheckpointError, about ``place``, for several models
    of which none is named, and for a name that no keys begin with.
    """
    models = models_in(keys, is_model)
    if name is not None:
        chosen = models.get(name) or {key: key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")}
        if not chosen:
            raise not_there(place, name, models or (key.partition(".")[0] for key in keys))
        return chosen
    first = next(iter(models), None)
    if first is None:
        return {key: key for key in keys}
    if others := [*_alike(first, models)]:
        raise several_models(place, [first, *others])
    return models[first]


def models_in(keys: Collection[str], is_model: IsModel) -> dict[str, dict[str, str]]:
    """The models among ``keys``, by name, those with the shortest prefix first: their keys, and the names behind it."""
    prefixes = {""}
    for key in keys:
        segments = key.split(".")
        for number, segment in enumerate(segments):
            if segment in _FIRST_SEGMENTS:
                prefixes.add("".join(f"{before}." for before in segments[:number]))
    models = {}
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.count("."), prefix)):
        names = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
        names = {key: name for key, name in names.items() if not _is_of_another(name)}
        if names and is_model(names.values()):
            models[prefix.removesuffix(".") or TOP] = names
    return models


def _is_of_another(name: str) -> bool:
    """Whether ``name`` is a model's only behind a prefix."""
    first, *others = name.split(".")
    return first not in _FIRST_SEGMENTS and not _FIRST_SEGMENTS.isdisjoint(others)


def several_models(place: object, names: Iterable[str]) -> CheckpointError:
    """The refusal of ``place``, whose models have these ``names``, as long as none is chosen."""
    found = _likely_first(names)
    return CheckpointError(
        f"{place} holds {len(found)} models with the same keys: {first_few(found)}. Nothing shows which is meant.",
        f"Say which: --state-dict {found[0]} (state_dict={found[0]!r}).",
    )


def not_there(place: object, name: str, names: Iterable[str]) -> CheckpointError:
    """The refusal of a ``name`` that ``place`` does not have, which has ``names``."""
    found = _likely_first(dict.fromkeys(names))
    return CheckpointError(
        f"{place} does not hold a state dict {name!r}. It holds {first_few(found)}.",
        f"Give one of those: --state-dict {found[0]}, or leave the option out.",
    )


def _likely_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: _OF_OTHER_USE.search(name) is not None)


def _alike(chosen: str, models: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The names of the other models that have at least half of the keys of the ``chosen`` one."""
    taken = {*models[chosen].values()}
    for name, model in models.items():
        if name != chosen and 2 * len(taken.intersection(model.values())) > len(taken):
            yield name
