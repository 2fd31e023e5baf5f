"""Examine a checkpoint: try what conversions do with it, and collect what they would say."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from internvl_bridge.checkpoint.inspection_report import inspection_summary
from internvl_bridge.checkpoint.weights import open_weights
from internvl_bridge.convert.companions.shared import read_whole_tokenizer
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import Conversion, command_for, prepare
from internvl_bridge.diagnosis.findings import Diagnosis, Finding, in_order
from internvl_bridge.diagnosis.trial import NOWHERE, Trial, refused, tried, with_options
from internvl_bridge.diagnosis.weights import Reading, findings_in_weights, not_read, typed_options
from internvl_bridge.errors import BridgeError, first_few
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.several_models import model_keys_in
from internvl_bridge.metadata.chat.choice import choose_chat
from internvl_bridge.metadata.chat.generation import read_generation_config
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.metadata.files import present
from internvl_bridge.metadata.json_files import read_json_file
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES
from internvl_bridge.metadata.tokenizer.to_hf import hf_tokenizer_files
from internvl_bridge.metadata.tokenizer.token_ids import required_token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT
from internvl_bridge.reporting.commands import typed_path


def examined_checkpoint(directory: Path, options: Options, reading: Reading) -> Diagnosis:
    """All that is to be said about ``directory``, which is meant to be a checkpoint."""
    home = directory if options.config is None else Path(options.config)
    try:
        format_ = detect_format(read_config(home))
    except BridgeError as error:
        return _refused_checkpoint(directory, options, reading, None, [refused(error)])
    trial = _trial(directory, options, format_, Format.HF)
    findings = [*trial.refusals]
    if format_ is Format.HF:
        # What it warns of is what a custom checkpoint needs, and an HF one does not.
        findings += _trial(directory, options, format_, Format.CUSTOM).refusals
    if trial.made is None:
        return _refused_checkpoint(directory, options, reading, format_, findings)
    conversion = trial.made
    command = with_options(trial.command, conversion.warnings)
    found = conversion.found
    findings += _told(conversion, command)
    findings += findings_in_weights(directory, conversion.model.checkpoint, reading)
    return Diagnosis(
        path=str(directory),
        kind="checkpoint",
        summary=f"a checkpoint in the {found.format} format ({found.family}): {inspection_summary(found)}",
        command=command,
        findings=in_order(findings),
        not_checked=tuple(not_read(directory, options, reading)),
    )


def _refused_checkpoint(
    directory: Path, options: Options, reading: Reading, format_: Format | None, findings: list[Finding]
) -> Diagnosis:
    """What can still be said about a checkpoint that no conversion takes."""
    home = directory if options.config is None else Path(options.config)
    found = [*findings, *map(refused, _errors_of_parts(directory, home, options.state_dict, format_))]
    unknown = ["What conversions look at after a refusal. Examine the directory again when that is mended."]
    try:
        opened = open_weights(directory, lambda _: True, options.state_dict)
    except BridgeError:  # that is among the findings
        pass
    else:
        found += findings_in_weights(directory, opened.checkpoint, reading)
        unknown += not_read(directory, options, reading)
    return Diagnosis(str(directory), "checkpoint", None, None, in_order(found), tuple(unknown))


def _trial(directory: Path, options: Options, format_: Format, wanted: Format) -> Trial[Conversion]:
    command = f"internvl-bridge {command_for(format_, wanted)} {typed_path(directory)} OUTPUT{typed_options(options)}"
    return tried(partial(prepare, directory, NOWHERE, (format_, wanted), options), command)


def _errors_of_parts(
    directory: Path, home: Path, state_dict: str | None, format_: Format | None
) -> Iterator[BridgeError]:
    """What is wrong with each part by itself: a refusal of one has hidden the others."""
    parts: list[Callable[[], object]] = [
        partial(read_config, home),
        partial(open_weights, directory, model_keys_in(format_ or Format.HF), state_dict),
        partial(_hf_tokenizer if format_ is Format.CUSTOM else read_whole_tokenizer, home),
        *([partial(required_token_id, home, IMAGE_CONTEXT)] if format_ is Format.CUSTOM else []),
        partial(read_generation_config, home),
        *(partial(read_json_file, path) for path in present(home, HF_PROCESSOR_FILES)),
    ]
    for read in parts:
        try:
            read()
        except BridgeError as error:
            yield error


def _hf_tokenizer(home: Path) -> object:
    tokenizer = read_whole_tokenizer(home)
    return hf_tokenizer_files(tokenizer, choose_chat(None, tokenizer.template, None), None)


def _told(conversion: Conversion, command: str) -> Iterator[Finding]:
    """What a conversion and an inspection say about a checkpoint that ``command`` converts."""
    found = conversion.found
    for warning in conversion.warnings:
        mends = with_options("", [warning])
        yield Finding("wrong", warning, command if mends else None)
    if found.format == Format.HF.value and found.usage is not None and not found.usage.processor:
        yield Finding("wrong", "There is no image processor, so that AutoProcessor does not open.", command)
    if found.repairable:
        versions = ", ".join(found.transformers)
        yield Finding("odd", f"Only transformers {versions} loads it with every tensor in its place.", command)
    yield from (Finding("odd", text) for text in (*found.faults, *conversion.notes, *found.remarks))
    if conversion.left_behind:
        yield Finding("odd", f"No part of the checkpoint: {first_few(conversion.left_behind)}.")
