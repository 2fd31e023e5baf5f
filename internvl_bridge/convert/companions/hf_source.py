"""What an HF directory says next to its weights and config.json, in terms of a custom config.json."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.convert.companions.remote_code import hub_auto_map, missing_modules
from internvl_bridge.convert.companions.shared import restored_tokenizer
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import conversation_name
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.tiling import ONE_TILE, custom_fields, custom_tiling, hf_tiling, top_tiling
from internvl_bridge.metadata.files import present
from internvl_bridge.metadata.json_files import Config, read_json_file
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES, image_processor
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles


@dataclass(frozen=True, slots=True)
class HfFiles:
    """What an HF directory says beside its weights and its config.json.

    ``processor`` holds its processor's files, parsed, by name; ``code`` are Python modules for the output.
    """

    directory: Path
    tokenizer: TokenizerFiles
    processor: Mapping[str, Config]
    code: tuple[Path, ...]


def read_hf_files(directory: Path, tokenizer: TokenizerFiles, code: Collection[Path]) -> HfFiles:
    """Read the processor's files of ``directory``. Raises CompanionFileError if one is malformed."""
    processor = {path.name: read_json_file(path).values for path in present(directory, HF_PROCESSOR_FILES)}
    return HfFiles(directory, tokenizer, processor, tuple(code))


def fields_from_files(hf: ModelDescription, files: HfFiles, other_format: OtherFormat | None) -> dict[str, Any]:
    """The fields of a custom config.json that HF's other files state, where the old one says otherwise."""
    old = other_format.description.values if other_format else {}
    told: dict[str, Any] = {}
    template = _template(hf, files, other_format)
    if template is not None and template != old.get("template"):
        told["template"] = template
    tiling = hf_tiling(image_processor(files.processor)) or top_tiling(hf.values)
    if tiling is not None and not (other_format and tiling == custom_tiling(old)):
        several = other_format is not None and ONE_TILE not in {tiling, custom_tiling(old)}
        told |= {name: value for name, value in custom_fields(tiling).items() if name != "use_thumbnail" or not several}
    thumbnail = hf.values.get("use_thumbnail")
    if isinstance(thumbnail, bool) and top_tiling(hf.values) != ONE_TILE and thumbnail != old.get("use_thumbnail"):
        told["use_thumbnail"] = thumbnail
    if _needs_hub(old, files, other_format):
        told["auto_map"] = hub_auto_map(hf.family)
    return told


def _template(hf: ModelDescription, files: HfFiles, other_format: OtherFormat | None) -> str | None:
    """The name of the conversation that HF's chat template renders, if that was written or changed by hand."""
    text, home = files.tokenizer.template, files.tokenizer.home
    stated = other_format.description.values.get("template") if other_format else None
    if text is None or restored_tokenizer(other_format, home) or (other_format and home == other_format.origin):
        return None
    if stated is not None and stated not in CONVERSATIONS:
        return None
    return conversation_name(text, preferred=[stated or hf.family.chatml_template])


def _needs_hub(old: Config, files: HfFiles, other_format: OtherFormat | None) -> bool:
    """Whether the output's Python modules have to come from the hub: neither a reference nor a sidecar has them."""
    if other_format is None:
        return True
    modules = {*other_format.files, *(path.name for path in files.code)}
    return other_format.is_reference and bool(missing_modules(old, modules))
