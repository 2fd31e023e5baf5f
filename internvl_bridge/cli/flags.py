"""Commands whose help shows flags without a value."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help shows flags without a value."""

    def get_params(self, ctx: Any) -> Any:
        return _flags_without_value(super().get_params(ctx))


class Group(TyperGroup):
    """A program whose help does so, too."""

    def get_params(self, ctx: Any) -> Any:
        return _flags_without_value(super().get_params(ctx))


def _flags_without_value(parameters: Any) -> Any:
    """``parameters``, also those that Typer adds, where it would show the type of a flag as its value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = " "
    return parameters
