"""From tensor specs to a proven plan, or to a refusal that names the keys."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum

from internvl_bridge.errors import AmbiguousKeyError, DuplicateKeyError, ProofError, UnknownKeyError
from internvl_bridge.mapping.diagnosis import explain_unknown_key
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, invert, is_identity
from internvl_bridge.mapping.transforms import Recipes, Transform


class Direction(Enum):
    """Which of the two formats a conversion ends in."""

    TO_HF = "to-hf"
    TO_CUSTOM = "to-custom"

    @property
    def reverse(self) -> "Direction":
        return Direction.TO_CUSTOM if self is Direction.TO_HF else Direction.TO_HF

    def patterns(self, transform: Transform) -> tuple[KeyPattern, ...]:
        """The keys that ``transform`` starts from in this direction."""
        return transform.custom_patterns if self is Direction.TO_HF else transform.hf_patterns

    def recipes(self, transform: Transform) -> Callable[[Mapping[str, TensorSpec]], Recipes]:
        """What ``transform`` does in this direction."""
        return transform.forward if self is Direction.TO_HF else transform.inverse


def make_plan(table: Sequence[Transform], specs: Mapping[str, TensorSpec], direction: Direction) -> Plan:
    """Plan the conversion of ``specs`` by the rows of ``table``.

    Raises UnknownKeyError or AmbiguousKeyError unless every key matches exactly one row,
    IncompleteGroupError or ContradictionError for parts that do not fit together, and
    DuplicateKeyError when two rows make the same tensor.
    """
    recipes: Recipes = {}
    for transform, claimed in _claims(table, specs, direction):
        for key, recipe in direction.recipes(transform)(claimed).items():
            if key in recipes:
                sources = sorted({run.key for run in (*recipes[key].runs, *recipe.runs)})
                raise DuplicateKeyError(
                    f"{', '.join(sources)} would both become {key}.", "Remove the tensors that are stale."
                )
            recipes[key] = recipe
    return Plan(specs, recipes)


def unmatched_keys(table: Sequence[Transform], keys: Iterable[str], direction: Direction) -> list[str]:
    """The keys that no row of ``table`` claims."""
    patterns = [pattern for transform in table for pattern in direction.patterns(transform)]
    return [key for key in keys if not any(pattern.matches(key) for pattern in patterns)]


def prove(plan: Plan, back: Callable[[Mapping[str, TensorSpec]], Plan]) -> None:
    """Show from the plan alone that converting and converting back changes nothing.

    ``back`` plans the opposite conversion from nothing but the specs of ``plan``'s targets. Raises
    ProofError unless that plan is ``plan``'s inverse and together they are the identity.
    """
    returning = back(plan.targets)
    if not is_identity(compose(returning, plan)) or dict(returning.recipes) != dict(invert(plan).recipes):
        changed = sorted(
            key for key, recipe in invert(plan).recipes.items() if returning.recipes.get(key) != recipe
        )
        raise ProofError(
            f"Converting back would not restore {', '.join(changed[:3])}.",
            "Nothing was written. This is a defect of internvl-bridge: please report it.",
        )


def _claims(
    table: Sequence[Transform], specs: Mapping[str, TensorSpec], direction: Direction
) -> list[tuple[Transform, dict[str, TensorSpec]]]:
    rows = [(transform, direction.patterns(transform)) for transform in table]
    claims: list[dict[str, TensorSpec]] = [{} for _ in rows]
    unknown: list[str] = []
    for key, spec in specs.items():
        owners = [
            index
            for index, (_, patterns) in enumerate(rows)
            if any(pattern.matches(key) for pattern in patterns)
        ]
        if len(owners) > 1:
            raise AmbiguousKeyError(
                f"{key} is claimed by {len(owners)} transforms.",
                "This is a defect of internvl-bridge: please report it.",
            )
        if owners:
            claims[owners[0]][key] = spec
        else:
            unknown.append(key)
    if unknown:
        raise explain_unknown_keys(unknown)
    return [(transform, claimed) for (transform, _), claimed in zip(rows, claims, strict=True)]


def explain_unknown_keys(keys: Sequence[str]) -> UnknownKeyError:
    """The refusal of keys that no transform claims: the first few, why, and what to do."""
    named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    reason, remedy = explain_unknown_key(keys[0])
    return UnknownKeyError(f"Unknown tensor {named}: {reason}.", remedy)
