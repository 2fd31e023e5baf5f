"""Whether a checkpoint's tensors are the ones that its config.json describes."""

import re
from collections.abc import Collection, Iterable, Mapping

from internvl_bridge.errors import ContradictionError, MissingKeyError, first_few
from internvl_bridge.mapping.plan import TensorSpec

_PARTS = {
    "vision tower": re.compile(r"(model\.)?vision_(model|tower)\."),
    "projector": re.compile(r"(model\.)?(mlp1|multi_modal_projector)\."),
    "language model": re.compile(r"(model\.)?language_model\."),
}
_FROM_BASE = (
    "If a trainer saved only what it trained, add --fill-from BASE (fill_from=...), the checkpoint that the training "
    "started from."
)
_LAYER = re.compile(r"(.*\.layers?)\.([0-9]+)\.")


def check_against(expected: Mapping[str, tuple[int, ...]], specs: Mapping[str, TensorSpec]) -> None:
    """Compare the tensors at hand with the keys and shapes that config.json makes expect.

    Raises ContradictionError for tensors that are too many or have another shape, and
    MissingKeyError for those that are absent.
    """
    unexpected = sorted(specs.keys() - expected.keys())
    missing = sorted(expected.keys() - specs.keys())
    _check_layer_counts(expected, specs)
    if missing and (part := _missing_part(expected, specs)):
        raise MissingKeyError(
            f"config.json describes {part}, but the checkpoint has none of its tensors.",
            _FROM_BASE,
        )
    if missing:
        raise MissingKeyError(
            f"config.json describes {_listed(missing)}, but the checkpoint does not have "
            f"{'them' if len(missing) > 1 else 'it'}.",
            _missing_remedy(missing),
        )
    if unexpected:
        raise ContradictionError(
            f"The checkpoint has {_listed(unexpected)}, but config.json describes a model without "
            f"{'them' if len(unexpected) > 1 else 'it'}.",
            "Correct config.json, or remove the tensors if they do not belong to the model.",
        )
    for key, spec in specs.items():
        if spec.shape != expected[key]:
            raise ContradictionError(
                f"{key} has shape {list(spec.shape)}, but config.json describes {list(expected[key])}.",
                "Use the config.json that this checkpoint was saved with.",
            )


def part_of(key: str) -> str:
    """The part of a model that ``key`` is of; the output head counts as one of the language model."""
    return next((name for name, mark in _PARTS.items() if mark.match(key)), "language model")


def counted_parts(missing: Collection[str], keys: Collection[str]) -> str:
    """The parts of a model with these ``keys`` that ``missing`` ones are of, and how many of each are missing."""
    counts = {name: (_matches(mark, missing), _matches(mark, keys)) for name, mark in _PARTS.items()}
    named = [f"{lacks} of {all_} tensors of the {name}" for name, (lacks, all_) in counts.items() if lacks]
    others = [key for key in missing if not any(mark.match(key) for mark in _PARTS.values())]
    return " and ".join([*named, *([first_few(others)] if others else [])])


def _matches(mark: re.Pattern[str], keys: Collection[str]) -> int:
    return sum(mark.match(key) is not None for key in keys)


def _missing_part(expected: Collection[str], specs: Collection[str]) -> str | None:
    """The part of a model of which no tensor is there: its name, and how many tensors it has."""
    for name, mark in _PARTS.items():
        keys = [key for key in expected if mark.match(key)]
        if len(keys) > 1 and not any(mark.match(key) for key in specs):
            return f"the {name} ({len(keys)} of {len(keys)} tensors)"
    return None


def _check_layer_counts(expected: Mapping[str, object], specs: Mapping[str, object]) -> None:
    described, found = _layer_counts(expected), _layer_counts(specs)
    for stack in sorted(described.keys() & found.keys()):
        if described[stack] != found[stack]:
            raise ContradictionError(
                f"The checkpoint has {found[stack]} layers {stack}.*, but config.json says "
                f"num_hidden_layers is {described[stack]}.",
                "Use the config.json that this checkpoint was saved with."
                + (f" {_FROM_BASE}" if found[stack] < described[stack] else ""),
            )


def _layer_counts(keys: Iterable[str]) -> dict[str, int]:
    layers: dict[str, set[str]] = {}
    for key in keys:
        if found := _LAYER.match(key):
            layers.setdefault(found[1], set()).add(found[2])
    return {stack: len(numbers) for stack, numbers in layers.items()}


def _missing_remedy(missing: list[str]) -> str:
    if len(missing) == 1 and missing[0].endswith(("lm_head.weight", "output.weight")):
        return (
            "The checkpoint is incomplete: save or download it again. Only if you know that the model uses its "
            "input embeddings as output head, set tie_word_embeddings to true in config.json."
        )
    return f"The checkpoint is incomplete: save or download it again. {_FROM_BASE}"


def _listed(keys: list[str]) -> str:
    return first_few(keys) + (" tensors" if len(keys) > 3 else "")
