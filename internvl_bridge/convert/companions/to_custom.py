"""What a custom directory holds beside weights and config.json, made from an HF one."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.convert.companions.remote_code import (
    hub_auto_map,
    hub_repository,
    missing_modules,
    tokenizer_at_hub,
)
from internvl_bridge.convert.companions.shared import (
    CompanionFiles,
    carried_files,
    others,
    restored_generation,
    restored_tokenizer,
)
from internvl_bridge.errors import shown
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.chat.template import conversation_name, for_custom, system_message
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.file import CONFIG_FILE, Config, as_text, is_present, read_json_file
from internvl_bridge.metadata.config.tiling import ONE_TILE, custom_fields, custom_tiling, hf_tiling
from internvl_bridge.metadata.config.translation import tile_side
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_CONFIG_FILE, has_tokenizer, present
from internvl_bridge.metadata.processor.files import (
    HF_PROCESSOR_FILES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREPROCESSOR_FILE,
    custom_preprocessor,
    image_processor,
)
from internvl_bridge.metadata.sidecar import OtherFormat
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles, can_load
from internvl_bridge.metadata.tokenizer.tokenizer_config import DECLARED, without_declared
from internvl_bridge.metadata.tokenizer.tokenizer_config import for_custom as tokenizer_config_for_custom


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
    """Read the processor's files of ``directory``. Raises ConfigError if one is malformed."""
    processor = {path.name: read_json_file(path).values for path in present(directory, HF_PROCESSOR_FILES)}
    return HfFiles(directory, tokenizer, processor, tuple(code))


def fields_from_files(hf: ModelDescription, files: HfFiles, other_format: OtherFormat | None) -> dict[str, Any]:
    """The fields of a custom config.json that the files beside HF's tell, where the complement says otherwise."""
    old = other_format.description.values if other_format else {}
    told: dict[str, Any] = {}
    template = _template(hf, files, other_format)
    if template is not None and template != old.get("template"):
        told["template"] = template
    tiling = hf_tiling(image_processor(files.processor))
    if tiling is not None and not (other_format and tiling == custom_tiling(old)):
        several = other_format is not None and ONE_TILE not in {tiling, custom_tiling(old)}
        told |= {name: value for name, value in custom_fields(tiling).items() if name != "use_thumbnail" or not several}
    if _needs_hub(old, files, other_format):
        told["auto_map"] = hub_auto_map(hf.family)
    return told


def custom_companions(config: Config, files: HfFiles, other_format: OtherFormat | None) -> CompanionFiles:
    """The files beside the custom ``config``. Raises ConfigError if one of HF's is malformed."""
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
    return CompanionFiles(texts, copies, tuple(_notes(config, files, other_format, texts, copies)))


def _template(hf: ModelDescription, files: HfFiles, other_format: OtherFormat | None) -> str | None:
    """The name of the conversation that HF's chat template renders, if that was written or changed by hand."""
    text, home = files.tokenizer.template, files.tokenizer.home
    stated = other_format.description.values.get("template") if other_format else None
    if text is None or restored_tokenizer(other_format, home) or (other_format and home == other_format.origin):
        return None
    if stated is not None and stated not in CONVERSATIONS:
        return None
    alike = "internlm2-chat" if hf.family.architecture == "InternLM2ForCausalLM" else "Hermes-2"
    return conversation_name(text, preferred=[stated or alike])


def _needs_hub(old: Config, files: HfFiles, other_format: OtherFormat | None) -> bool:
    """Whether the output's Python modules have to come from the hub: nobody lends or restores them."""
    if other_format is None:
        return True
    modules = {*other_format.files, *(path.name for path in files.code)}
    return other_format.is_reference and bool(missing_modules(old, modules))


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
    """The complement's preprocessor_config.json, where it is for tiles of the same size; none if it had none."""
    side = tile_side(config)
    if other_format and tile_side(other_format.description.values) == side:
        if PREPROCESSOR_FILE in other_format.files:
            return {PREPROCESSOR_FILE: other_format.files[PREPROCESSOR_FILE]}
        if not other_format.is_reference:
            return {}
    return {PREPROCESSOR_FILE: as_text(custom_preprocessor(side))}


def _notes(
    config: Config, files: HfFiles, other_format: OtherFormat | None, texts: Mapping[str, str], copies: Collection[Path]
) -> Iterator[str]:
    names = {*texts, *(path.name for path in copies)}
    tokenizer = json.loads(texts.get(TOKENIZER_CONFIG_FILE, "{}"))
    if repository := hub_repository(config):
        is_old = other_format is not None and repository == hub_repository(other_format.description.values)
        chosen = f"as {other_format.origin} says" if other_format and is_old else "chosen by the language model's class"
        yield (
            f"auto_map names {repository} for the Python modules (*.py), {chosen}: transformers fetches them from "
            f"there when the model is loaded with trust_remote_code. A --reference that has them lends them instead."
        )
    if missing := sorted({*missing_modules(config, names), *missing_modules(tokenizer, names)}):
        yield (
            f"The output needs {', '.join(missing)}, which the source did not have either: before loading it with "
            f"trust_remote_code, copy them there from the original model, or convert with that as --reference."
        )
    if code := [name for name in texts if name.endswith(".py")]:
        yield (
            f"The sidecar restored {', '.join(code)}: read them before loading with trust_remote_code, unless you "
            f"know where the sidecar comes from."
        )
    if has_tokenizer(files.tokenizer.home) and not can_load(tokenizer, names):
        yield (
            f"{files.tokenizer.home} has no tokenizer that can be loaded: tokenizer.json, tokenizer.model or "
            f"vocab.json with merges.txt is missing. Copy it there, or give a directory that has it as --tokenizer."
        )
    yield from _lost_in_custom(config, files)


def _lost_in_custom(config: Config, files: HfFiles) -> Iterator[str]:
    """What HF's files say and upstream's code does otherwise."""
    message = system_message(files.tokenizer.template or "")
    conversation = CONVERSATIONS.get(config.get("template") or "")
    if message is not None and conversation is not None and message != conversation.system_message:
        yield (
            f"The chat template renders the system message {message[:60]!r}; the custom format has none of its own: "
            f"upstream's code renders that of template {config['template']!r}."
        )
    pixels, side = image_processor(files.processor), tile_side(config)
    upstream = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "size": {"height": side, "width": side}}
    for name, value in upstream.items():
        if pixels.get(name, value) != value:
            yield (
                f"The image processor has {name} {shown(pixels[name])}, which the custom format cannot say: upstream's "
                f"code uses {value}."
            )
