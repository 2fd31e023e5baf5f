"""The arguments and options of the commands, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

from internvl_bridge.convert.options import ACCEPTABLE, Dtype, ExpertsOption, Layout, Order, Tied
from internvl_bridge.storage.linking import Link

COMMON_PANEL, INPUT_PANEL, OUTPUT_PANEL = "Common options", "Options for the source", "Options for the output"
ADAPTERS_PANEL, SAFETY_PANEL, PRINTING_PANEL = "Options for adapters", "Safety", "What is printed"
MACHINES_PANEL = "Several processes, or machines"

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="Directory of the checkpoint, or of the LoRA adapter, to convert.", show_default=False
    ),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="Directory of the checkpoint, of either format.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Argument(
        metavar="OUTPUT",
        help="Directory to create, with its parents. It appears complete and verified, or not at all.",
        show_default=False,
    ),
]
HfReference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        metavar="DIR",
        help="An HF checkpoint to compare the output with: prints missing (only in the output) and unexpected (only in "
        "the reference) keys and the L2 distance. Its config.json is kept where it means the same as SOURCE's.",
        show_default=False,
        rich_help_panel=COMMON_PANEL,
    ),
]
CustomReference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        metavar="DIR",
        help="A custom checkpoint to compare the output with: prints missing (only in the output) and unexpected (only "
        "in the reference) keys and the L2 distance. It also gives what the HF format cannot state (template, tiling, "
        "InternLM2 or Llama names), and its *.py files.",
        show_default=False,
        rich_help_panel=COMMON_PANEL,
    ),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the tokenizer files are, if not in SOURCE.",
        show_default=False,
        rich_help_panel=COMMON_PANEL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="DIR",
        help="Where config.json and the tokenizer are, if not beside the weights.",
        show_default=False,
        rich_help_panel=INPUT_PANEL,
    ),
]
StateDict = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which model is meant, where the weights are those of several, for instance a model and its average.",
        show_default=False,
        rich_help_panel=INPUT_PANEL,
    ),
]
FillFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="BASE",
        help="A checkpoint of either format. Tensors that SOURCE lacks, as a trainer saved only what it trained, are "
        "taken from it.",
        show_default=False,
        rich_help_panel=INPUT_PANEL,
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(
        metavar="BASE",
        help="The base model of an adapter, of either format: its config.json and headers are read.",
        show_default="the one that adapter_config.json names",
        rich_help_panel=ADAPTERS_PANEL,
    ),
]
TargetBase = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="The base model in the output's format, for adapter_config.json.",
        show_default="what is there",
        rich_help_panel=ADAPTERS_PANEL,
    ),
]
Transformers = Annotated[
    int,
    typer.Option(
        metavar="4|5",
        help="The major version of transformers that an HF adapter of experts is for.",
        autocompletion=lambda: ["4", "5"],
        rich_help_panel=ADAPTERS_PANEL,
    ),
]
SystemMessage = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|none",
        help="System message that the chat template renders for conversations without one.",
        show_default="upstream's",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
LayoutChoice = Annotated[
    Layout,
    typer.Option(
        case_sensitive=False,
        metavar="l1|l2",
        help="Keys of the output: l1 is what all versions of transformers read, l2 what model.state_dict() has.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ExpertsChoice = Annotated[
    ExpertsOption,
    typer.Option(
        case_sensitive=False,
        metavar="split|fused",
        help="Experts of Qwen3-MoE in the output. split: one tensor for each expert. All versions of transformers read "
        "it, but 5.0 to 5.3 lose the experts. fused: one tensor for all experts of a layer. Versions from 5.0 on read "
        "it. Other models have one way.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
TiedChoice = Annotated[
    Tied | None,
    typer.Option(
        case_sensitive=False,
        metavar="copy|keep",
        help="If SOURCE's input embeddings serve as output head: write a copy of them as the head, or keep them tied, "
        "without a head.",
        show_default="copy, or as in the sidecar",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Size of the files of weights, for instance 5GB, 5G or 800MiB.",
        show_default="the source's shards",
        rich_help_panel=COMMON_PANEL,
    ),
]
OrderChoice = Annotated[
    Order,
    typer.Option(
        case_sensitive=False,
        metavar="source|name",
        help="Order of the tensors in a file: the source's, or by name, as safetensors does.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
LinkChoice = Annotated[
    Link | None,
    typer.Option(
        "--link",
        case_sensitive=False,
        metavar="KIND",
        autocompletion=lambda: ["hard", "symbolic"],
        help="Make hard or symbolic links of those files of weights that equal a file of SOURCE, instead of writing "
        "them. A program that writes into a linked file changes SOURCE and OUTPUT alike.",
        show_default="write every file",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ReadLinks = Annotated[
    bool,
    typer.Option(
        "--read-links",
        help="Read the files that --link links, to take their checksums.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="REPO",
        help="Then bring OUTPUT to the hub as owner/name, with a model card.",
        show_default=False,
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Private = Annotated[bool, typer.Option("--private", help="Create a private repository.", rich_help_panel=OUTPUT_PANEL)]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Read a SOURCE on the hub by ranges, and keep no copy of it.",
        rich_help_panel=INPUT_PANEL,
    ),
]
WorkerChoice = Annotated[
    str | None,
    typer.Option(
        "--worker",
        metavar="I/N",
        help="Write the share of worker I of N only; when all have ended, 'internvl-bridge finish OUTPUT'. auto: as "
        "Slurm or torchrun number this process, or auto/N as an indexed job of Kubernetes does.",
        show_default=False,
        rich_help_panel=MACHINES_PANEL,
    ),
]
RayCluster = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|local",
        help="Write the files with a Ray cluster whose machines all see SOURCE and OUTPUT, or with one that is started "
        "here.",
        show_default=False,
        rich_help_panel=MACHINES_PANEL,
    ),
]
RayReaders = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|local",
        help="Read the files with a Ray cluster whose machines all see OUTPUT, or with one that is started here.",
        show_default=False,
        rich_help_panel=MACHINES_PANEL,
    ),
]
Consume = Annotated[
    bool,
    typer.Option(
        "--consume",
        help="Delete each file of weights in SOURCE as soon as OUTPUT has its tensors, read back and compared: for a "
        "disk without room for both.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do not ask before --consume deletes.", rich_help_panel=SAFETY_PANEL),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Read the output back and compare it with the source.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Files to write or read at a time.",
        show_default="one for each core, at most four",
        rich_help_panel=COMMON_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace OUTPUT, if it is a checkpoint and holds nothing else, once the new one is complete.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Start over, where a run that was stopped has left OUTPUT.partial to go on with.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="NAME",
        help="Do what would be refused; the refusal says which NAME lifts it. Can be given several times.",
        show_default=False,
        autocompletion=lambda: [*ACCEPTABLE],
        rich_help_panel=SAFETY_PANEL,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the plan and what it would write, and stop.",
        rich_help_panel=SAFETY_PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object for programs: the result, or the error.",
        rich_help_panel=PRINTING_PANEL,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Also save the result to look at: a page (FILE.html), or its figures alone (FILE.svg).",
        show_default=False,
        rich_help_panel=PRINTING_PANEL,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="List every tensor with its L2 distance.", rich_help_panel=PRINTING_PANEL),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing but errors and warnings.", rich_help_panel=PRINTING_PANEL),
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option(
        "--adapter",
        metavar="DIR",
        help="A LoRA adapter to merge, for a base of either format. Can be given several times.",
        show_default=False,
        rich_help_panel=ADAPTERS_PANEL,
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="The lora_alpha of the training, for factors in SOURCE itself where nothing there states it.",
        show_default=False,
        rich_help_panel=ADAPTERS_PANEL,
    ),
]
DtypeChoice = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        case_sensitive=False,
        metavar="bfloat16|float16|float32",
        help="What all weights are cast to.",
        show_default="each keeps its own",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
WantedDtype = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        case_sensitive=False,
        metavar="bfloat16|float16|float32",
        help="What weights are cast to.",
        show_default=False,
        rich_help_panel=OUTPUT_PANEL,
    ),
]
