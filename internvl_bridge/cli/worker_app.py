"""The command that ends what several workers have begun."""

from pathlib import Path
from typing import Annotated

import typer

from internvl_bridge.cli.arguments import (
    Accept,
    Json,
    Overwrite,
    Private,
    PushToHub,
    Quiet,
    RayReaders,
    Report,
    Verbose,
    Workers,
)
from internvl_bridge.cli.flags import Command


def add_to(app: typer.Typer) -> None:
    """Let ``app`` have this command."""
    app.command(
        "finish",
        cls=Command,
        help="Finish an output whose files several workers have written (--worker).\n\n"
        "Reads all files once more, and compares them with the checksums that the workers wrote down. Then writes the "
        "small files, and publishes OUTPUT. Says what is missing, and which workers have to be started again.",
        epilog="Example: internvl-bridge finish /data/InternVL3_5-241B-A28B-HF",
    )(finish)


def finish(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The output that was given to the workers.", show_default=False)
    ],
    workers: Workers = None,
    ray: RayReaders = None,
    overwrite: Overwrite = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    accept: Accept = None,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Finish an output whose files several workers have written."""
    from internvl_bridge.cli import worker_commands
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.convert.options import Execution

    execution = Execution(workers=workers, overwrite=overwrite, ray=ray, accept=frozenset(accept or ()))
    show = PrintOptions(
        as_json=as_json, verbose=verbose, quiet=quiet, report=report, push_to=push_to_hub, private=private
    )
    worker_commands.finish(output, execution, show)
