"""The commands that compute, on the command line: merge, extract, cast."""

from pathlib import Path

import typer

from internvl_bridge.cli.arguments import (
    Accept,
    Adapters,
    Alpha,
    Checkpoint,
    Config,
    DryRun,
    DtypeChoice,
    Json,
    MaxShardSize,
    Output,
    Overwrite,
    Private,
    PushToHub,
    Quiet,
    Report,
    Restart,
    StateDict,
    Transformers,
    Verbose,
    Verify,
    WantedDtype,
    Workers,
)
from internvl_bridge.cli.flags import Command


def add_to(app: typer.Typer) -> None:
    """Let ``app`` have these commands."""
    app.command(
        "merge",
        cls=Command,
        help="Merge LoRA adapters into a checkpoint: those that are given, or the one in SOURCE itself.\n\n"
        "This is arithmetic, not a bit-exact copy: a weight W becomes W + s B A, computed in float64 and rounded once. "
        "SOURCE is a base model, or what a trainer saved with LoRA not merged (base_layer, lora_A and lora_B among its "
        "keys). OUTPUT has the format of SOURCE; to-hf and to-custom convert it.",
        epilog="Example: internvl-bridge merge ./InternVL3_5-8B ./my-merged --adapter ./my-lora",
    )(merge)
    app.command(
        "extract",
        cls=Command,
        help="Take the LoRA adapter out of a checkpoint that a trainer saved without merging it.\n\n"
        "OUTPUT/base is the base model, and OUTPUT/adapter an adapter as PEFT saves it. Both hold the bytes of SOURCE. "
        "Merging them again gives what 'merge SOURCE' gives, bit for bit.",
        epilog="Example: internvl-bridge extract ./my-trained ./parts",
    )(extract)
    app.command(
        "cast",
        cls=Command,
        help="Cast the weights of a checkpoint to another dtype, rounded once to the nearest.\n\n"
        "Prints the largest relative error of each part of the model. A number that the dtype cannot hold is refused. "
        "Quantised weights stay as they are. config.json states the new dtype.",
        epilog="Example: internvl-bridge cast ./my-finetune ./my-bfloat16 --dtype bfloat16",
    )(cast)


def merge(
    source: Checkpoint,
    output: Output,
    adapter: Adapters = None,
    alpha: Alpha = None,
    dtype: DtypeChoice = None,
    config: Config = None,
    state_dict: StateDict = None,
    transformers: Transformers = 5,
    max_shard_size: MaxShardSize = None,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    push_to_hub: PushToHub = None,
    private: Private = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge LoRA adapters into a checkpoint."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.arithmetic_commands import compute
    from internvl_bridge.convert.options import Execution, Options

    options = Options(
        adapters=tuple[Path, ...](adapter or ()),
        alpha=alpha,
        dtype=dtype,
        config=config,
        state_dict=state_dict,
        transformers=transformers,
        max_shard_size=max_shard_size,
    )
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept or ()))
    show = PrintOptions(
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
        dry_run=dry_run,
        report=report,
        push_to=push_to_hub,
        private=private,
    )
    compute("merge", source, output, options, execution, show)


def extract(
    source: Checkpoint,
    output: Output,
    alpha: Alpha = None,
    config: Config = None,
    state_dict: StateDict = None,
    max_shard_size: MaxShardSize = None,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Take the LoRA adapter out of a checkpoint."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.arithmetic_commands import extract as take_out
    from internvl_bridge.convert.options import Execution, Options

    options = Options(alpha=alpha, config=config, state_dict=state_dict, max_shard_size=max_shard_size)
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept or ()))
    take_out(
        source,
        output,
        options,
        execution,
        PrintOptions(as_json=as_json, verbose=verbose, quiet=quiet, dry_run=dry_run, report=report),
    )


def cast(
    source: Checkpoint,
    output: Output,
    dtype: WantedDtype,
    config: Config = None,
    state_dict: StateDict = None,
    max_shard_size: MaxShardSize = None,
    verify: Verify = True,
    workers: Workers = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    accept: Accept = None,
    dry_run: DryRun = False,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Cast the weights of a checkpoint to another dtype."""
    from internvl_bridge.cli.answers import PrintOptions
    from internvl_bridge.cli.arithmetic_commands import compute
    from internvl_bridge.convert.options import Execution, Options

    options = Options(dtype=dtype, config=config, state_dict=state_dict, max_shard_size=max_shard_size)
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept or ()))
    show = PrintOptions(as_json=as_json, verbose=verbose, quiet=quiet, dry_run=dry_run, report=report)
    compute("cast", source, output, options, execution, show)
