"""The commands for others: the model card of an output, and its way to the hub."""

from pathlib import Path
from typing import Annotated

import typer

from internvl_bridge.cli.arguments import Json, Private, Quiet, Workers
from internvl_bridge.cli.flags import Command

_Made = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Directory that a conversion made.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Let ``app`` have these commands."""
    app.command(
        "push",
        cls=Command,
        help="Bring an output to the hub, in one commit: all its files, and a model card.\n\n"
        "Its files are compared with their checksums first. Who you are is what 'hf auth login' says.",
        epilog="Example: internvl-bridge push ./my-finetune-HF me/my-finetune-HF --private",
    )(push)
    app.command(
        "card",
        cls=Command,
        help="Print the model card of an output: base model, licence, how it was made, checksums.",
        epilog="Example: internvl-bridge card ./my-finetune-HF > README.md",
    )(card)


def push(
    output: _Made,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub.", show_default=False)],
    private: Private = False,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring an output to the hub."""
    from internvl_bridge.cli import sharing
    from internvl_bridge.cli.answers import PrintOptions

    show = PrintOptions(as_json=as_json, verbose=False, quiet=quiet)
    sharing.push(output, repository, workers, show, private=private)


def card(output: _Made, as_json: Json = False) -> None:
    """Print the model card of an output."""
    from internvl_bridge.cli import sharing
    from internvl_bridge.cli.answers import PrintOptions

    sharing.card(output, PrintOptions(as_json=as_json, verbose=False, quiet=False))
