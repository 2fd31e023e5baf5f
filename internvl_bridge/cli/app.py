"""The command line: arguments in; what they lead to is in :mod:`internvl_bridge.cli.commands`.

Importing this module, for ``--help`` or shell completion, imports little but Typer; each command imports the rest
when it runs.
"""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from internvl_bridge._version import __version__
from internvl_bridge.cli import arithmetic_app, sharing_app, worker_app
from internvl_bridge.cli.arguments import (
    COMMON_PANEL,
    PRINTING_PANEL,
    SAFETY_PANEL,
    Accept,
    Base,
    Config,
    Consume,
    CustomReference,
    DryRun,
    ExpertsChoice,
    FillFrom,
    HfReference,
    Json,
    LayoutChoice,
    LinkChoice,
    MaxShardSize,
    OrderChoice,
    Output,
    Overwrite,
    Private,
    PushToHub,
    Quiet,
    RayCluster,
    ReadLinks,
    Report,
    Restart,
    Source,
    StateDict,
    Stream,
    SystemMessage,
    TargetBase,
    TiedChoice,
    Tokenizer,
    Transformers,
    Verbose,
    Verify,
    WorkerChoice,
    Workers,
    Yes,
)
from internvl_bridge.cli.flags import Command, Group
from internvl_bridge.verification.sort import Sort

_PROGRAM = "internvl-bridge"
_UsageError: Any = typer.BadParameter.__mro__[1]
"""What Click raises for arguments that it cannot use; where it is defined depends on the version of Typer."""


app = typer.Typer(
    name=_PROGRAM,
    cls=Group,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Convert InternVL checkpoints between the custom format of their training code and the HF format of "
    "transformers: both ways, bit for bit, in bounded memory.",
    epilog="Exit codes: 0 done (for verify: identical), 1 differs or something is wrong, 2 bad input or usage, "
    "130 interrupted.",
)


@app.command(
    "to-hf",
    cls=Command,
    help="Convert a custom checkpoint into one that transformers loads.\n\n"
    "SOURCE is a directory with config.json (model_type internvl_chat), safetensors files and the "
    "tokenizer. OUTPUT loads with AutoModelForImageTextToText and AutoProcessor, without remote code: it has the "
    "processor, the chat template and the generation config that SOURCE's own files imply.\n\n"
    "SOURCE can also be a LoRA adapter, with --base.",
    epilog="Example: internvl-bridge to-hf ./InternVL3_5-8B ./InternVL3_5-8B-HF",
)
def to_hf(
    source: Source,
    output: Output,
    reference: HfReference = None,
    tokenizer: Tokenizer = None,
    config: Config = None,
    state_dict: StateDict = None,
    fill_from: FillFrom = None,
    base: Base = None,
    target_base: TargetBase = None,
    transformers: Transformers = 5,
    system_message: SystemMessage = None,
    layout: LayoutChoice = "l1",
    experts: ExpertsChoice = "split",
    max_shard_size: MaxShardSize = None,
    order: OrderChoice = "source",
    link: LinkChoice = None,
    read_links: ReadLinks = False,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    consume: Consume = False,
    stream: Stream = False,
    worker: WorkerChoice = None,
    ray: RayCluster = None,
    yes: Yes = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Convert a custom checkpoint into one that transformers loads."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.commands import convert
    from internvl_bridge.convert.options import Execution, Options

    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        base=base,
        target_base=target_base,
        transformers=transformers,
        reference=reference,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
    )
    accepted = frozenset(accept or ())
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, worker, ray)
    show = PrintOptions(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        dry_run=dry_run,
        report=report,
        yes=yes,
        push_to=push_to_hub,
        private=private,
    )
    convert("to-hf", source, output, options, execution, show)


@app.command(
    "to-custom",
    cls=Command,
    help="Convert a transformers (HF) checkpoint into InternVL's own custom format.\n\n"
    "SOURCE is a directory with config.json (model_type internvl) and the weights. They can be in any spelling that a "
    "version of transformers or a trainer has written: safetensors, pytorch_model*.bin or "
    "torch.distributed.checkpoint. What HF's config.json cannot say comes from --reference, else from the sidecar "
    "internvl_bridge.json that to-hf left in SOURCE. Without these, it comes from the chat template and the image "
    "processor, else from defaults that are printed.\n\n"
    "SOURCE can also be a LoRA adapter, with --base.",
    epilog="Example: internvl-bridge to-custom ./my-finetune-HF ./my-finetune --reference ./InternVL3_5-8B",
)
def to_custom(
    source: Source,
    output: Output,
    reference: CustomReference = None,
    tokenizer: Tokenizer = None,
    config: Config = None,
    state_dict: StateDict = None,
    fill_from: FillFrom = None,
    base: Base = None,
    target_base: TargetBase = None,
    transformers: Transformers = 5,
    tied: TiedChoice = None,
    max_shard_size: MaxShardSize = None,
    order: OrderChoice = "source",
    link: LinkChoice = None,
    read_links: ReadLinks = False,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    consume: Consume = False,
    stream: Stream = False,
    worker: WorkerChoice = None,
    ray: RayCluster = None,
    yes: Yes = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Convert a transformers (HF) checkpoint into InternVL's own custom format."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.commands import convert
    from internvl_bridge.convert.options import Execution, Options

    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        base=base,
        target_base=target_base,
        transformers=transformers,
        reference=reference,
        tokenizer=tokenizer,
        tied=tied,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
    )
    accepted = frozenset(accept or ())
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, worker, ray)
    show = PrintOptions(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        dry_run=dry_run,
        report=report,
        yes=yes,
        push_to=push_to_hub,
        private=private,
    )
    convert("to-custom", source, output, options, execution, show)


@app.command(
    "repair",
    cls=Command,
    help="Make an HF checkpoint one that every transformers from 4.52 on loads.\n\n"
    "SOURCE is a directory with config.json (model_type internvl) and the weights. They can be in any spelling that a "
    "version of transformers or a trainer has written. OUTPUT has the keys that all versions read, and one tensor per "
    "expert. It has a config.json for transformers 4 and 5, and a complete processor. No bit of a tensor changes.",
    epilog="Example: internvl-bridge repair ./checkpoint-500 ./my-finetune-HF",
)
def repair(
    source: Source,
    output: Output,
    tokenizer: Tokenizer = None,
    config: Config = None,
    state_dict: StateDict = None,
    fill_from: FillFrom = None,
    base: Base = None,
    target_base: TargetBase = None,
    transformers: Transformers = 5,
    system_message: SystemMessage = None,
    layout: LayoutChoice = "l1",
    experts: ExpertsChoice = "split",
    max_shard_size: MaxShardSize = None,
    order: OrderChoice = "source",
    link: LinkChoice = None,
    read_links: ReadLinks = False,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    consume: Consume = False,
    stream: Stream = False,
    worker: WorkerChoice = None,
    ray: RayCluster = None,
    yes: Yes = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Make an HF checkpoint one that every transformers from 4.52 on loads."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.commands import convert
    from internvl_bridge.convert.options import Execution, Options

    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        base=base,
        target_base=target_base,
        transformers=transformers,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
    )
    accepted = frozenset(accept or ())
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, worker, ray)
    show = PrintOptions(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        dry_run=dry_run,
        report=report,
        yes=yes,
        push_to=push_to_hub,
        private=private,
    )
    convert("repair", source, output, options, execution, show)


@app.command(
    "plan",
    cls=Command,
    help="Show what converting SOURCE would do and cost, from its headers alone.\n\n"
    "Prints how every tensor is made, the files, and the bytes that would be read, written and cloned. Also prints how "
    "much room is needed. A custom checkpoint would become an HF one and the other way round; --repair plans that "
    "instead. Exit code 2 if it does not fit on the disk.",
    epilog="Example: internvl-bridge plan ./InternVL3_5-8B /data/InternVL3_5-8B-HF",
)
def plan(
    source: Source,
    output: Annotated[
        Path | None,
        typer.Argument(metavar="OUTPUT", help="Where it would be written.", show_default="beside SOURCE"),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Plan a repair of an HF checkpoint.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="As for the conversion.", show_default=False, rich_help_panel=COMMON_PANEL),
    ] = None,
    tokenizer: Tokenizer = None,
    config: Config = None,
    state_dict: StateDict = None,
    fill_from: FillFrom = None,
    base: Base = None,
    target_base: TargetBase = None,
    transformers: Transformers = 5,
    layout: LayoutChoice = "l1",
    experts: ExpertsChoice = "split",
    tied: TiedChoice = None,
    max_shard_size: MaxShardSize = None,
    order: OrderChoice = "source",
    link: LinkChoice = None,
    read_links: ReadLinks = False,
    verify: Verify = True,
    overwrite: Overwrite = False,
    consume: Consume = False,
    accept: Accept = None,
    report: Report = None,
    as_json: Json = False,
) -> None:
    """Show what converting a checkpoint would do and cost."""
    from internvl_bridge.cli import planning
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.convert.options import Execution, Options

    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        base=base,
        target_base=target_base,
        transformers=transformers,
        reference=reference,
        tokenizer=tokenizer,
        layout=layout,
        experts=experts,
        tied=tied,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
    )
    accepted = frozenset(accept or ())
    execution = Execution(verify, overwrite=overwrite, accept=accepted, read_links=read_links, consume=consume)
    show = PrintOptions(as_json=as_json, verbose=False, quiet=False, report=report)
    planning.plan(source, output, options, execution, show, repair=repair)


@app.command(
    "verify",
    cls=Command,
    help="Compare the weights of two checkpoints, of the same or of different formats, bit for bit.\n\n"
    "Prints where they differ: by component, layer by layer, and what changed most. Also prints which tensors are "
    "missing (only in LEFT), unexpected (only in RIGHT) or mismatched (another shape or dtype). Relative distances are "
    "in units of the L2 norm of LEFT's tensors that differ. --report also counts the differences of single elements, "
    "which takes about as long again. With --checksums, LEFT "
    "is an output of this program. All its files are compared with the checksums that were stored when it was made. "
    "Exit code 1 if anything differs.",
    epilog="Example: internvl-bridge verify ./InternVL3_5-8B ./InternVL3_5-8B-HF",
)
def verify(
    left: Annotated[
        Path, typer.Argument(metavar="LEFT", help="Directory of a checkpoint or adapter.", show_default=False)
    ],
    right: Annotated[
        Path | None, typer.Argument(metavar="RIGHT", help="Directory of another one.", show_default=False)
    ] = None,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Compare LEFT with its own checksums, without a RIGHT.")
    ] = False,
    ignore_dtype: Annotated[
        bool,
        typer.Option("--ignore-dtype", help="Compare the values of tensors in different dtypes, as after a cast."),
    ] = False,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows of what changed most.", rich_help_panel=PRINTING_PANEL)
    ] = 10,
    sort: Annotated[
        Sort,
        typer.Option(
            case_sensitive=False,
            metavar="relative|l2|largest|name",
            help="Their order: by the relative L2 distance, the L2 distance, the largest difference of two elements, "
            "or by name.",
            rich_help_panel=PRINTING_PANEL,
        ),
    ] = "relative",
    base: Base = None,
    workers: Workers = None,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare the weights of two checkpoints, or the files of one with their checksums."""
    from internvl_bridge.cli import comparing
    from internvl_bridge.cli.answers import PrintOptions

    if checksums == (right is not None):
        raise typer.BadParameter("give either RIGHT or --checksums", param_hint="RIGHT")
    if checksums and ignore_dtype:
        raise typer.BadParameter("checksums have no dtype", param_hint="--ignore-dtype")
    how = comparing.Comparing(workers, base, ignore_dtype=ignore_dtype, top=top, sort=sort)
    comparing.verify(left, right, how, PrintOptions(as_json=as_json, verbose=verbose, quiet=quiet, report=report))


@app.command("inspect", cls=Command, epilog="Example: internvl-bridge inspect ./InternVL3_5-8B")
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Directory of a checkpoint or adapter.", show_default=False)
    ],
    config: Config = None,
    state_dict: StateDict = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Show what a checkpoint holds, from its headers and config.json.

    Of a model that config.json calls tied, the output head is compared with the input embeddings, too.
    """
    from internvl_bridge.cli import describing
    from internvl_bridge.cli.answers import PrintOptions

    describing.inspect(path, config, state_dict, base, PrintOptions(as_json=as_json, verbose=False, quiet=False))


@app.command(
    "doctor",
    cls=Command,
    help="Find what is wrong or odd about a checkpoint, an adapter or a trainer's directory.\n\n"
    "Makes the checks of a conversion and goes on after a refusal as far as that makes sense. Prints what is wrong, "
    "with what to do about it, then what is odd, then what was not checked. Exit code 1 if anything is wrong.",
    epilog="Example: internvl-bridge doctor ./checkpoint-500",
)
def doctor(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Directory of a checkpoint or adapter.", show_default=False)
    ],
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also read all weights: compare them with recorded checksums, and look for values that are not "
            "finite.",
        ),
    ] = False,
    config: Config = None,
    state_dict: StateDict = None,
    base: Base = None,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong or odd about a directory."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.examining import Examined, doctor

    examined = Examined(path, config, state_dict, base)
    doctor(examined, workers, PrintOptions(as_json=as_json, verbose=False, quiet=quiet), deep=deep)


@app.command(
    "check-load",
    cls=Command,
    help="Open a checkpoint with the installed transformers, as its user would, and run one prompt with a made-up "
    "image.\n\n"
    "An HF checkpoint is opened by AutoModelForImageTextToText and AutoProcessor, a custom one by load_pretrained, "
    "which shows the weights and not upstream's code. Prints missing, unexpected and replaced tensors, what was "
    "imported, and the memory. Exit code 1 if anything is not in its place.",
    epilog="Example: internvl-bridge check-load ./my-finetune-HF --against ./InternVL3_5-8B",
)
def check_load(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Directory of a checkpoint.", show_default=False)],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="SOURCE",
            help="A checkpoint of either format that gets the same inputs: the logits are compared.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Open only the first N layers of each tower, for models that do not fit."
        ),
    ] = None,
    meta: Annotated[
        bool, typer.Option("--meta", help="Compare names and shapes only: read no weights, compute nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Open a checkpoint with the installed transformers."""
    from internvl_bridge.cli import examining
    from internvl_bridge.cli.answers import PrintOptions

    show = PrintOptions(as_json=as_json, verbose=False, quiet=quiet)
    examining.check_load(path, against, show, layers=layers, meta=meta)


@app.command("models", cls=Command, epilog="Example: internvl-bridge models")
def models(as_json: Json = False) -> None:
    """Show the released models, which of them convert, and what to know about each.

    Fine-tunes convert as the release that they were made from.
    """
    from internvl_bridge.cli import describing

    describing.models(as_json=as_json)


@app.command(
    "clean",
    cls=Command,
    help="List the unfinished outputs in a directory that no run works on any more.\n\n"
    "Prints the age and the size of each, and the command that goes on with it. With --yes they are removed. What a "
    "run works on and what belongs to another user is left alone. So is what may be the only copy of an output.",
    epilog="Example: internvl-bridge clean /data --yes",
)
def clean(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIRECTORY", help="Where outputs were to be made.", show_default=False),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove them.", rich_help_panel=SAFETY_PANEL)] = False,
    as_json: Json = False,
) -> None:
    """List what runs have left unfinished, or remove it."""
    from internvl_bridge.cli import describing

    describing.clean(directory, remove=yes, as_json=as_json)


arithmetic_app.add_to(app)
worker_app.add_to(app)
sharing_app.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from internvl_bridge.cli.terminal import exit_codes, say

        with exit_codes():
            say([f"internvl-bridge {__version__}"])
        raise typer.Exit


_FIRST_STEPS = """\
internvl-bridge converts InternVL checkpoints between two formats, bit for bit.

  internvl-bridge inspect DIR            What is it, and what loads it?
  internvl-bridge to-hf DIR OUTPUT       Custom to HF, for transformers, vLLM.
  internvl-bridge to-custom DIR OUTPUT   HF to custom, for InternVL's own code.

If something does not load or convert:   internvl-bridge doctor DIR
All commands and options:                internvl-bridge --help
Completion with the tab key:             internvl-bridge --install-completion"""


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        from internvl_bridge.cli.terminal import exit_codes, put

        with exit_codes():
            put(_FIRST_STEPS)
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; the entry point is :mod:`internvl_bridge.__main__`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # lest a name that cannot be printed fails
    if "--json" not in sys.argv:
        app(prog_name=_PROGRAM)
    try:
        sys.exit(app(prog_name=_PROGRAM, standalone_mode=False))
    except _UsageError as error:
        _say_usage_error(error)
        sys.exit(error.exit_code)


def _say_usage_error(error: Any) -> None:
    """Print what is wrong with the arguments for people and for programs."""
    from internvl_bridge.cli.answers import say_failure
    from internvl_bridge.cli.terminal import Failure, exit_codes

    error.show()
    named = error.ctx.info_name if error.ctx else None
    with exit_codes():
        failure = Failure("UsageError", error.format_message(), None, error.exit_code)
        say_failure(None if named == _PROGRAM else named, failure)
