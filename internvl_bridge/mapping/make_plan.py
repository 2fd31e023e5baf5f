"""From tensor specs to a proven plan, or to a refusal that names the keys."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from internvl_bridge.errors import AmbiguousKeyError, DuplicateKeyError, ProofError, UnknownKeyError, first_few
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.numberless import of_first_expert
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Plan, TensorSpec, restored
from internvl_bridge.mapping.transforms import Recipes, Transform, recipes_into, source_patterns
from internvl_bridge.mapping.unknown_keys import reason_for_unknown


def make_plan(table: Sequence[Transform], specs: Mapping[str, TensorSpec], wanted: Format) -> Plan:
    """Plan the conversion of ``specs`` into the format ``wanted`` by the rows of ``table``.

    Raises UnknownKeyError or AmbiguousKeyError unless every key matches exactly one row. Raises IncompleteGroupError or
    ContradictionError for parts that do not fit together. Raises DuplicateKeyError when two rows make the same tensor.
    """
    recipes: Recipes = {}
    for transform, claimed in _claims(table, specs, wanted):
        for key, recipe in recipes_into(wanted, transform, claimed).items():
            if key in recipes:
                sources = sorted({run.key for run in (*recipes[key].runs, *recipe.runs)})
                raise DuplicateKeyError(
                    f"{', '.join(sources)} would both become {key}.", "Remove the tensors that are stale."
                )
            recipes[key] = recipe
    return Plan(specs, recipes)


def unmatched_keys(table: Sequence[Transform], wanted: Format, keys: Iterable[str]) -> list[str]:
    """The keys that no row of ``table`` claims."""
    lookup = RowLookup(table, wanted)
    return [key for key in keys if not lookup.of(key)]


def prove(plan: Plan, back: Callable[[Mapping[str, TensorSpec]], Plan]) -> None:
    """Show from the plan alone that converting and converting back changes nothing.

    ``back`` plans the opposite conversion from nothing but the specs of ``plan``'s targets. Raises
    ProofError unless ``plan`` uses every source element exactly once, and ``back`` puts each of them
    back where it was: then the one after the other is the identity.
    """
    returning = back(plan.targets).recipes
    changed = [key for key, recipe in restored(plan) if returning.get(key) != recipe]
    changed += sorted(returning.keys() - plan.sources.keys())
    if changed:
        raise ProofError(
            f"Converting back would not restore {', '.join(changed[:3])}.",
            "Nothing was written. This is a defect of internvl-bridge: please report it.",
        )


def _claims(
    table: Sequence[Transform], specs: Mapping[str, TensorSpec], wanted: Format
) -> list[tuple[Transform, dict[str, TensorSpec]]]:
    lookup = RowLookup(table, wanted)
    claims: list[dict[str, TensorSpec]] = [{} for _ in table]
    unknown: list[str] = []
    for key, spec in specs.items():
        rows = lookup.of(key)
        if len(rows) > 1:
            raise AmbiguousKeyError(
                f"{key} is claimed by {len(rows)} transforms.",
                "This is a defect of internvl-bridge: please report it.",
            )
        if rows:
            claims[rows[0]][key] = spec
        else:
            unknown.append(key)
    if unknown:
        raise explain_unknown_keys(unknown)
    return list(zip(table, claims, strict=True))


class RowLookup:
    """Which rows of a table claim a key, on the way into the format ``wanted``.

    Only patterns with as many segments as the key are tried, and of the experts of a layer only the first one: patterns
    take any number.
    """

    __slots__ = ("_found", "_patterns")

    def __init__(self, table: Sequence[Transform], wanted: Format) -> None:
        self._found: dict[str, list[int]] = {}
        self._patterns: dict[int | None, list[tuple[int, KeyPattern]]] = {None: []}
        for row, transform in enumerate(table):
            for pattern in source_patterns(wanted, transform):
                self._patterns.setdefault(pattern.segments, []).append((row, pattern))

    def of(self, key: str) -> list[int]:
        """Indices of the rows that claim ``key``, each once."""
        alike = of_first_expert(key)
        rows = self._found.get(alike)
        if rows is None:
            rows = self._found[alike] = self._claiming(alike)
        return rows

    def _claiming(self, key: str) -> list[int]:
        candidates = self._patterns[None] + self._patterns.get(key.count(".") + 1, [])
        return list(dict.fromkeys(row for row, pattern in candidates if pattern.matches(key)))


def explain_unknown_keys(keys: Sequence[str]) -> UnknownKeyError:
    """The refusal of keys that no transform claims: the first few, why, and what to do."""
    reason, remedy = reason_for_unknown(keys)
    return UnknownKeyError(f"Unknown tensor {first_few(keys)}: {reason}.", remedy)
