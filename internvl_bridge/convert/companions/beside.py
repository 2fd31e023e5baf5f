"""Decide the files beside the weights of an output, for each kind of conversion."""

from collections.abc import Mapping
from pathlib import Path

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.untrained import notes_on_untrained
from internvl_bridge.convert.companions.notes import notes_on_tensors, notes_to_custom, notes_to_hf
from internvl_bridge.convert.companions.repair import repaired_companions, repaired_turn_end
from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.convert.companions.to_custom import custom_companions, fields_from_files, read_hf_files
from internvl_bridge.convert.companions.to_hf import hf_companions
from internvl_bridge.errors import ConfigError, ContradictionError
from internvl_bridge.metadata.chat.choice import choose_chat
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import turn_end
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import CONFIG_FILE, ConfigFile, as_text, read_json_file
from internvl_bridge.metadata.config.repair import repaired_config
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config
from internvl_bridge.metadata.files import has_tokenizer, remote_code
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles, read_tokenizer_files
from internvl_bridge.metadata.tokenizer.token_ids import required_token_id, token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from internvl_bridge.metadata.tokenizer.tokenizer_json import check_whole
from internvl_bridge.planning.tensor_plan import ModelPlan


def hf_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> CompanionFiles:
    """The files of an HF checkpoint made from a custom one, with config.json and without the sidecar.

    ``home`` is where the tokenizer is. Raises ConfigError or ContradictionError for what is malformed or does not
    belong together.
    """
    description, other_format = model.description, model.other_format
    tokenizer = _read_tokenizer(home)
    chat = choose_chat(description.values.get("template"), tokenizer.template, system_message)
    end_id = None if chat.turn_end is None else token_id(home, chat.turn_end)
    tokens = TokenFacts(_image_token(model, home), end_id)
    config = to_hf_config(
        description, _tensor_facts(model, planned), tokens, other_format.description if other_format else None
    )
    beside = hf_companions(description, tokenizer, chat, end_id, other_format)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_to_hf(model, config),
        *beside.notes,
    )
    return CompanionFiles({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def custom_files(model: Model, planned: ModelPlan, home: Path, reference: str | Path | None) -> CompanionFiles:
    """The files of a custom checkpoint made from an HF one; as :func:`hf_files`. ``reference`` lends its modules."""
    description, other_format = model.description, model.other_format
    tokenizer = _read_tokenizer(home)
    files = read_hf_files(model.directory, tokenizer, remote_code(Path(reference)) if reference else [])
    beside_config = fields_from_files(description, files, other_format)
    old = other_format.description if other_format else None
    named = CONVERSATIONS.get(old.values.get("template") or "") if old else None
    end = turn_end(tokenizer.template or "") or (named.turn_end if named else None)
    end_id = None if end is None else token_id(home, end)
    config, assumed = to_custom_config(description, _tensor_facts(model, planned), beside_config, end_id, old)
    beside = custom_companions(config, files, other_format)
    told = notes_to_custom(model, {name: config[name] for name in assumed}, home)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *told,
        *beside.notes,
    )
    return CompanionFiles({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def repaired_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> CompanionFiles:
    """The files of an HF checkpoint made portable; as :func:`hf_files`, but a tokenizer may be missing."""
    description = model.description
    tokenizer = _read_tokenizer(home)
    has_tokens = tokenizer.has_vocabulary or home != model.directory
    image = _image_token(model, home) if has_tokens else description.values.get("image_token_id", 151667)
    tokens = TokenFacts(image, repaired_turn_end(description, tokenizer))
    config = repaired_config(description, _tensor_facts(model, planned), tokens)
    beside = repaired_companions(description, tokenizer, config, system_message)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *beside.notes,
    )
    text = description.file.text if config == description.file.values else as_text(config)
    return CompanionFiles({**beside.texts, CONFIG_FILE: text}, beside.copies, notes)


def tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not home.is_dir():
            raise ConfigError(f"{home}, which was given for the tokenizer, is not a directory.", "Give one that is.")
        if not has_tokenizer(home):
            raise ConfigError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return source if home.samefile(source) else home
    return reference if reference is not None and not has_tokenizer(source) else source


def _tensor_facts(model: Model, planned: ModelPlan) -> TensorFacts:
    return TensorFacts(tied=planned.tied, mxfp4=planned.mxfp4, dtype=model.dtype)


def _config_text(model: Model, config: Mapping[str, object]) -> str:
    """The text of the output's config.json: the complement's own, where it says the same.

    Raises ConfigError if the complement describes a model of other sizes.
    """
    description, other_format = model.description, model.other_format
    made = describe(ConfigFile(Path(CONFIG_FILE), "", config), model.specs, description.family)
    if made.dims != description.dims:
        raise ConfigError(
            f"{description.file.path} and the sidecar or reference describe models of different sizes.",
            "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
        )
    if other_format is not None and config == other_format.description.file.values:
        return other_format.files[CONFIG_FILE]
    return as_text(config)


def _image_token(model: Model, tokenizer_home: Path) -> int:
    """The id of ``<IMG_CONTEXT>``, which the model, like those of the tokens around it, must have embeddings for."""
    ids = {token: required_token_id(tokenizer_home, token) for token in (IMAGE_CONTEXT, IMAGE_START, IMAGE_END)}
    embeddings = model.description.dims.text.vocab
    for token, number in ids.items():
        if number >= embeddings:
            raise ContradictionError(
                f"The tokenizer in {tokenizer_home} has {token} at id {number}, but the model has only {embeddings} "
                f"embeddings.",
                "Use the tokenizer that the checkpoint was saved with.",
            )
    return ids[IMAGE_CONTEXT]


def _read_tokenizer(home: Path) -> TokenizerFiles:
    tokenizer = read_tokenizer_files(home)
    if tokenizer.has_json:
        check_whole(home / "tokenizer.json")
    elif tokenizer.has_pairs:
        read_json_file(home / "vocab.json")
    return tokenizer


def _tokenizer_note(model: Model, home: Path) -> list[str]:
    return [] if home == model.directory else [f"The tokenizer is that of {home}, not of {model.directory}."]
