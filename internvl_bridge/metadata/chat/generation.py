"""generation_config.json: by which tokens a model ends its answer."""

from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError, shown
from internvl_bridge.mapping import value_checks
from internvl_bridge.mapping.value_checks import optional
from internvl_bridge.metadata.json_files import Config, JsonFile, is_present, read_json_file

GENERATION_FILE = "generation_config.json"


def read_generation_config(directory: Path) -> JsonFile | None:
    """The generation_config.json of ``directory``, None if it has none.

    Raises CompanionFileError if it is malformed.
    """
    path = directory / GENERATION_FILE
    if not is_present(path):
        return None
    file = read_json_file(path)
    if not optional(value_checks.token_ids)(stated := file.values.get("eos_token_id")):
        raise CompanionFileError(
            f"{path} has eos_token_id {shown(stated)}, which is not a token.", "Correct it, or remove the file."
        )
    return file


def with_turn_end(eos: Any, turn_end: int | None) -> Any:
    """``eos``, one id or several or none, such that ``turn_end`` is among them."""
    stated = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if turn_end is None or turn_end in stated:
        return eos
    return [turn_end, *stated] if stated else turn_end


def hf_generation_config(
    custom: Config | None, text: Config, turn_end: int | None, pad: int | None = None
) -> dict[str, Any]:
    """The HF generation config for a custom one, or for none; ``text`` is the language model's config.

    ``pad`` is the token that the tokenizer fills batches up with. It is stated where nothing else is: servers ask here.

    ``_from_model_config`` goes, because transformers 4 could then take the ids of config.json instead. Where the file
    says nothing of eos, transformers does not ask config.json either, so that it is said here.
    """
    result = {name: value for name, value in (custom or {}).items() if name != "_from_model_config"}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if text.get(name) is not None and (custom is None or name != "bos_token_id") and result.get(name) is None:
            result[name] = text[name]
    if pad is not None and result.get("pad_token_id") is None:
        result["pad_token_id"] = pad
    eos = with_turn_end(result.get("eos_token_id"), turn_end)
    return result if eos is None else {**result, "eos_token_id": eos}
