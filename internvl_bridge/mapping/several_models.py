"""Which keys are those of the model that is meant, where a dump holds several: a model and its average, two actors."""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping

from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import LAYOUTS

IsModel = Callable[[Collection[str]], bool]
"""Whether keys are those of a model, and not of something that a trainer keeps beside it."""
TOP = "."
"""The name of a model whose keys have no prefix."""
_OF_OTHER_USE = re.compile("ema|avg|average|critic|ref|reward|teacher|target|old", re.IGNORECASE)
"""In names of models that are seldom the one that is meant."""
_OF_OPTIMIZERS = re.compile("optim|exp_avg|momentum|moment_|master|fp32")
"""In keys of an optimizer's states, which otherwise are those of the weights."""

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


def chosen_model(
    place: object, keys: Collection[str], is_model: IsModel, name: str | None, *, leaves_out: bool = True
) -> dict[str, str]:
    """Those of ``keys`` that are of the model called ``name``, with their names in it; without a name, the only model.

    All keys as they are if no prefix makes a model of them. ``leaves_out``: the others are left out, so that no part of
    the model may be among them. Raises CheckpointError, about ``place``, for several models
    of which none is named, and for parts of one behind several prefixes. Also for a name that no keys begin with.
    """
    prefixes = _prefixes(keys)
    models = _models(keys, prefixes, is_model)
    if name is not None:
        chosen = models.get(name) or _behind("" if name == TOP else f"{name}.", keys, prefixes)
        if not chosen:
            raise not_there(place, name, models or (key.partition(".")[0] for key in keys))
        return chosen
    first = next(iter(models), None)
    if first is None:
        return {key: key for key in keys}
    alike, parts = _others(first, models, keys, prefixes, is_model)
    if alike:
        raise several_models(place, [first, *alike])
    if parts and leaves_out:
        raise several_parts(place, [first, *parts])
    return models[first]


def several_models(place: object, names: Iterable[str]) -> CheckpointError:
    """The refusal of ``place``, whose models have these ``names``, as long as none is chosen."""
    found = _likely_first(names)
    return CheckpointError(
        f"{place} holds {len(found)} models with the same keys: {first_few(found)}. Nothing shows which is meant.",
        f"Say which: --state-dict {shlex.quote(found[0])} (state_dict={found[0]!r}).",
    )


def several_parts(place: object, names: Iterable[str]) -> CheckpointError:
    """The refusal of ``place``, which holds parts of a model under these ``names``."""
    return CheckpointError(
        f"{place} holds parts of a model under several names: {first_few(_likely_first(names))}. Nothing says whether "
        f"they belong together.",
        "Save the whole model as one state dict, or name the one that is meant (--state-dict NAME).",
    )


def not_there(place: object, name: str, names: Iterable[str]) -> CheckpointError:
    """The refusal of a ``name`` that ``place`` does not have, which has ``names``."""
    found = _likely_first(dict.fromkeys(names))
    return CheckpointError(
        f"{place} does not hold a state dict {name!r}. It holds {first_few(found)}.",
        f"Give one of those: --state-dict {shlex.quote(found[0])}, or leave the option out.",
    )


def is_of_optimizer(key: str) -> bool:
    """Whether ``key`` is that of a state of an optimizer."""
    return _OF_OPTIMIZERS.search(key) is not None


def is_of_other_use(name: str) -> bool:
    """Whether ``name`` is that of a model that is seldom the one that is meant."""
    return _OF_OTHER_USE.search(name) is not None


def _prefixes(keys: Collection[str]) -> list[str]:
    """What stands before the first segments of models in ``keys``; the shortest first."""
    prefixes = {""}
    for key in keys:
        segments = key.split(".")
        for number, segment in enumerate(segments):
            if segment in _FIRST_SEGMENTS:
                prefixes.add("".join(f"{before}." for before in segments[:number]))
    return sorted(prefixes, key=lambda prefix: (prefix.count("."), prefix))


def _models(keys: Collection[str], prefixes: Iterable[str], is_model: IsModel) -> dict[str, dict[str, str]]:
    """The models among ``keys``, by name: their keys, and the names behind their prefix."""
    models = {}
    for prefix in prefixes:
        names = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
        names = {key: name for key, name in names.items() if not _is_of_another(name)}
        if names and is_model(names.values()):
            models[_name(prefix)] = names
    return models


def _behind(prefix: str, keys: Collection[str], prefixes: Iterable[str]) -> dict[str, str]:
    """The keys behind ``prefix``; at the top, those that have none of the others."""
    others = tuple(other for other in prefixes if other and other.partition(".")[0] not in _FIRST_SEGMENTS - {"model"})
    found = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    return found if prefix else {key: name for key, name in found.items() if not key.startswith(others)}


def _is_of_another(name: str) -> bool:
    """Whether ``name`` is a model's only behind a prefix."""
    first, *others = name.split(".")
    return first not in _FIRST_SEGMENTS and not _FIRST_SEGMENTS.isdisjoint(others)


def _others(
    first: str,
    models: Mapping[str, Mapping[str, str]],
    keys: Collection[str],
    prefixes: Iterable[str],
    is_model: IsModel,
) -> tuple[list[str], list[str]]:
    """What else is beside the model ``first``: names of other models, and of what may be parts of it."""
    taken = {*models[first].values()}
    left = [key for key in keys if key not in models[first] and not is_of_optimizer(key)]
    alike, parts = [], []
    for prefix in prefixes:
        behind = (key.removeprefix(prefix) for key in left if key.startswith(prefix))
        names = {name for name in behind if not _is_of_another(name)}
        if 2 * len(names & taken) > len(taken):
            alike.append(_name(prefix))
        elif names and names.isdisjoint(taken) and is_model(names):
            parts.append(_name(prefix))
    return alike, parts


def _likely_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=is_of_other_use)


def _name(prefix: str) -> str:
    return prefix.removesuffix(".") or TOP
