"""What the tests state about plans."""

from internvl_bridge.mapping.plan import Plan, Run


def is_identity(plan: Plan) -> bool:
    """Whether the plan changes neither a name, a shape nor the place of an element."""
    return plan.targets == dict(plan.sources) and all(
        recipe.runs == (Run(key, 0, recipe.spec.elements),) or recipe.spec.elements == 0
        for key, recipe in plan.recipes.items()
    )
