"""What a custom directory holds beside weights and config.json, made from an HF one."""

from collections.abc import Collection
from pathlib import Path

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.untrained import notes_on_untrained
from internvl_bridge.convert.companions.custom_notes import notes_on_directory, notes_to_custom
from internvl_bridge.convert.companions.hf_source import HfFiles, fields_from_files, read_hf_files
from internvl_bridge.convert.companions.remote_code import (
    missing_modules,
    tokenizer_at_hub,
)
from internvl_bridge.convert.companions.shared import (
    CompanionFiles,
    carried_files,
    config_text,
    notes_on_tensors,
    notes_on_tokenizer_home,
    others,
    read_whole_tokenizer,
    restored_generation,
    restored_tokenizer,
    tensor_facts,
)
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.chat.template import for_custom, turn_end
from internvl_bridge.metadata.config.tiling import tile_side
from internvl_bridge.metadata.config.translation import to_custom_config
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_CONFIG_FILE, has_tokenizer, remote_code
from internvl_bridge.metadata.json_files import CONFIG_FILE, Config, as_text, is_present, read_json_file
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.processor.files import (
    PREPROCESSOR_FILE,
    custom_preprocessor,
)
from internvl_bridge.metadata.tokenizer.token_ids import token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import DECLARED, without_declared
from internvl_bridge.metadata.tokenizer.tokenizer_config import for_custom as tokenizer_config_for_custom
from internvl_bridge.planning.tensor_plan import ModelPlan


def custom_files(model: Model, planned: ModelPlan, home: Path, reference: str | Path | None) -> CompanionFiles:
    """The files of a custom checkpoint made from an HF one; modules come from ``reference``. See :func:`hf_files`."""
    description, other_format = model.description, model.other_format
    tokenizer = read_whole_tokenizer(home)
    files = read_hf_files(model.directory, tokenizer, remote_code(Path(reference)) if reference else [])
    from_files = fields_from_files(description, files, other_format)
    old = other_format.description if other_format else None
    named = CONVERSATIONS.get(old.values.get("template") or "") if old else None
    end = turn_end(tokenizer.template or "") or (named.turn_end if named else None)
    end_id = None if end is None else token_id(home, end)
    config, assumed = to_custom_config(description, tensor_facts(model, planned), from_files, end_id, old)
    companions = custom_companions(config, files, other_format)
    told = notes_to_custom(model, {name: config[name] for name in assumed}, home)
    notes = (
        *notes_on_tokenizer_home(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *told,
        *companions.notes,
    )
    return CompanionFiles({**companions.texts, CONFIG_FILE: config_text(model, config)}, companions.copies, notes)


def custom_companions(config: Config, files: HfFiles, other_format: OtherFormat | None) -> CompanionFiles:
    """The files beside the custom ``config``. Raises CompanionFileError if one of HF's is malformed."""
    known = {CONFIG_FILE, GENERATION_FILE, PREPROCESSOR_FILE, *(path.name for path in files.code), *LEGAL_FILES}
    kept = others(other_format, known)
    restored = restored_tokenizer(other_format, files.tokenizer.home)
    texts = {
        **kept,
        **(restored or _tokenizer(files, kept)),
        **_generation(files.directory, other_format),
        **_preprocessor(config, other_format),
    }
    made = other_format.written if other_format and restored else {}
    copies = (*carried_files(files.directory, files.tokenizer.home, without={*texts, *made}), *files.code)
    return CompanionFiles(texts, copies, tuple(notes_on_directory(config, files, other_format, texts, copies)))


def _tokenizer(files: HfFiles, kept: Collection[str]) -> dict[str, str]:
    """The tokenizer's files in custom terms; its module is upstream's, if neither lent nor among those ``kept``."""
    tokenizer = files.tokenizer
    if not has_tokenizer(tokenizer.home):
        return {}
    template = None if tokenizer.template is None else for_custom(tokenizer.template)
    config = tokenizer_config_for_custom(tokenizer.config, template, has_slow_files=tokenizer.has_slow_files)
    if missing_modules(config, {*kept, *(path.name for path in files.code)}):
        config = tokenizer_at_hub(config)
    texts = {TOKENIZER_CONFIG_FILE: as_text(config)}
    path = tokenizer.home / "special_tokens_map.json"
    if is_present(path) and not DECLARED.keys().isdisjoint(values := read_json_file(path).values):
        texts[path.name] = as_text(without_declared(values))
    return texts


def _generation(directory: Path, other_format: OtherFormat | None) -> dict[str, str]:
    restored = restored_generation(other_format, directory)
    if restored is not None:
        return restored
    path = directory / GENERATION_FILE
    return {GENERATION_FILE: read_json_file(path).text} if is_present(path) else {}


def _preprocessor(config: Config, other_format: OtherFormat | None) -> dict[str, str]:
    """The old preprocessor_config.json, where it is for tiles of the same size; none if there was none."""
    side = tile_side(config)
    if other_format and tile_side(other_format.description.values) == side:
        if PREPROCESSOR_FILE in other_format.files:
            return {PREPROCESSOR_FILE: other_format.files[PREPROCESSOR_FILE]}
        if not other_format.is_reference:
            return {}
    return {PREPROCESSOR_FILE: as_text(custom_preprocessor(side))}
