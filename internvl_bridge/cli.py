"""The command line: arguments in, words out, no logic."""

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import internvl_bridge
from internvl_bridge import conversion, words
from internvl_bridge.metadata.config_file import Format
from internvl_bridge.report import comparison_as_json
from internvl_bridge.terminal import DIFFERS, exit_codes, progress_bar

app = typer.Typer(
    name="internvl-bridge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Convert InternVL checkpoints between the custom format of their training code and the HF format of "
    "transformers: both ways, bit for bit, in bounded memory.",
    epilog="Exit codes: 0 done (for verify: identical), 1 differs, 2 bad input or usage, 130 interrupted.",
)


class Order(StrEnum):
    """Physical order of the tensors in a file."""

    source = "source"
    name = "name"


Source = Annotated[Path, typer.Argument(help="Directory of the checkpoint to convert.", show_default=False)]
Output = Annotated[
    Path,
    typer.Argument(
        help="Directory to create. It appears complete and verified, or not at all.", show_default=False
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="A checkpoint in the output's format to compare with; it also tells what the source's format "
        "cannot (template, tiling, InternLM2 or Llama names).",
        show_default=False,
    ),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Directory to take the tokenizer files from, if not SOURCE.", show_default=False),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(help="Re-shard, for instance 5GB or 800MiB.", show_default="the source's shards"),
]
OrderOption = Annotated[
    Order,
    typer.Option(help="Order of the tensors in a file: the source's, or safetensors' own by name."),
]
Verify = Annotated[bool, typer.Option(help="Read the output back and compare it with the source.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and what would be written; write nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a report for programs.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="List every tensor with its L2 distance.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.command("to-hf")
def to_hf(
    source: Source,
    output: Output,
    reference: Reference = None,
    tokenizer: Tokenizer = None,
    max_shard_size: MaxShardSize = None,
    order: OrderOption = Order.source,
    verify: Verify = True,
    dry_run: DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Convert a custom checkpoint into one that transformers loads.

    SOURCE is a directory with config.json (model_type internvl_chat), safetensors files and the
    tokenizer. OUTPUT loads with InternVLForConditionalGeneration.from_pretrained, without remote code.
    """
    _convert(
        Format.HF,
        (source, output, reference, tokenizer, max_shard_size, order),
        verify=verify,
        dry_run=dry_run,
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
    )


@app.command("to-custom")
def to_custom(
    source: Source,
    output: Output,
    reference: Reference = None,
    tokenizer: Tokenizer = None,
    max_shard_size: MaxShardSize = None,
    order: OrderOption = Order.source,
    verify: Verify = True,
    dry_run: DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Convert a transformers (HF) checkpoint into InternVL's own custom format.

    SOURCE is a directory with config.json (model_type internvl) and safetensors files. What the HF
    format cannot say comes from the sidecar internvl_bridge.json that to-hf left there, else from
    --reference, else from defaults that are printed.
    """
    _convert(
        Format.CUSTOM,
        (source, output, reference, tokenizer, max_shard_size, order),
        verify=verify,
        dry_run=dry_run,
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
    )


@app.command("verify")
def verify(
    left: Annotated[Path, typer.Argument(help="Directory of a checkpoint.", show_default=False)],
    right: Annotated[Path, typer.Argument(help="Directory of another one.", show_default=False)],
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare the weights of two checkpoints, of the same or of different formats, bit for bit.

    Prints the L2 distance of every tensor that differs and over all. Exit code 1 if anything differs.
    """
    with exit_codes():
        with progress_bar(quiet=quiet) as progress:
            comparison = internvl_bridge.verify(left, right, progress=progress)
        _print(
            comparison_as_json(comparison),
            words.comparison_words(comparison, verbose=verbose),
            as_json=as_json,
            quiet=quiet,
        )
        if not comparison.identical:
            raise typer.Exit(DIFFERS)


@app.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(help="Directory of a checkpoint.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Tell what a checkpoint holds, from its headers and config.json alone."""
    with exit_codes():
        found = internvl_bridge.inspect(path)
        _print(found.as_json(), words.inspection_words(found), as_json=as_json, quiet=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"internvl-bridge {internvl_bridge.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _convert(
    wanted: Format,
    arguments: tuple[Path, Path, Path | None, Path | None, str | None, Order],
    *,
    verify: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    source, output, reference, tokenizer, max_shard_size, order = arguments
    with exit_codes():
        prepared = conversion.prepare(
            source, output, wanted, reference, tokenizer, max_shard_size, order.value
        )
        if dry_run:
            _print(words.plan_as_json(prepared), words.plan_words(prepared), as_json=as_json, quiet=quiet)
            return
        with progress_bar(quiet=quiet) as progress:
            report = conversion.carry_out(prepared, verify=verify, progress=progress)
        _print(
            report.as_json(), words.conversion_words(report, verbose=verbose), as_json=as_json, quiet=quiet
        )
        if not report.ok:
            raise typer.Exit(DIFFERS)


def _print(values: dict[str, Any], lines: Iterable[str], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, indent=2))
    elif not quiet:
        typer.echo("\n".join(lines))


def main() -> None:
    """The entry point of ``internvl-bridge`` and ``python -m internvl_bridge``."""
    app(prog_name="internvl-bridge")
