"""Examine an adapter: try to convert it, and collect what that would say."""

from functools import partial
from pathlib import Path

from internvl_bridge.checkpoint.adapter_inspection import inspect_adapter
from internvl_bridge.checkpoint.adapter_report import adapter_summary
from internvl_bridge.checkpoint.adapters import read_adapter
from internvl_bridge.convert.adapters import prepare_adapter
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import command_for
from internvl_bridge.diagnosis.findings import Diagnosis, Finding, in_order
from internvl_bridge.diagnosis.trial import NOWHERE, refused, tried
from internvl_bridge.diagnosis.weights import Reading, findings_in_weights, not_read, typed_options
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.reporting.commands import typed_path


def examined_adapter(directory: Path, options: Options, reading: Reading) -> Diagnosis:
    """All that is to be said about the adapter in ``directory``."""
    try:
        found, checkpoint = inspect_adapter(directory, base=options.base), read_adapter(directory).checkpoint
    except BridgeError as error:
        return Diagnosis(str(directory), "adapter", None, None, (refused(error),), ())
    findings: list[Finding] = []
    unknown = [*not_read(directory, options, reading)]
    if found.refusal is not None:
        findings.append(Finding("wrong", found.refusal))
    elif found.spelling is None:
        unknown.insert(0, "Whether it fits its base model, which is not known or not here. Give that as --base.")
    else:
        format_ = Format(found.format)
        # What it warns of is what an adapter of the other format needs.
        formats = (format_, format_.other)
        command = f"internvl-bridge {command_for(*formats)} {typed_path(directory)} OUTPUT{typed_options(options)}"
        findings += tried(partial(prepare_adapter, directory, NOWHERE, formats, options), command).refusals
    findings += findings_in_weights(directory, checkpoint, reading)
    return Diagnosis(str(directory), "adapter", adapter_summary(found), None, in_order(findings), tuple(unknown))
