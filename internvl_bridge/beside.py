"""Decide the files beside the weights of an output, for each kind of conversion."""

from collections.abc import Mapping
from pathlib import Path

from internvl_bridge.errors import ConfigError, ContradictionError
from internvl_bridge.metadata.chat_template import turn_end
from internvl_bridge.metadata.companions import Companions
from internvl_bridge.metadata.config_file import CONFIG_FILE, ConfigFile, as_text, read_json_file
from internvl_bridge.metadata.conversations import CONVERSATIONS
from internvl_bridge.metadata.custom_directory import custom_companions, read_hf_files, told_by_files
from internvl_bridge.metadata.described import describe
from internvl_bridge.metadata.files import has_tokenizer, remote_code
from internvl_bridge.metadata.hf_directory import hf_companions
from internvl_bridge.metadata.hf_speech import hf_speech
from internvl_bridge.metadata.portable_config import portable_config
from internvl_bridge.metadata.portable_directory import portable_companions, portable_turn_end
from internvl_bridge.metadata.tokenizer import required_token_id, token_id
from internvl_bridge.metadata.tokenizer_config import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from internvl_bridge.metadata.tokenizer_files import TokenizerFiles, read_tokenizer_files
from internvl_bridge.metadata.tokenizer_json import check_whole
from internvl_bridge.metadata.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config
from internvl_bridge.model import Model
from internvl_bridge.model_plan import ModelPlan
from internvl_bridge.notes import notes_on_tensors, notes_to_custom, notes_to_hf
from internvl_bridge.untrained import notes_on_untrained


def hf_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> Companions:
    """The files of an HF checkpoint made from a custom one, with config.json and without the sidecar.

    ``home`` is where the tokenizer is. Raises ConfigError or ContradictionError for what is malformed or does not
    belong together.
    """
    described, complement = model.described, model.complement
    tokenizer = _read_tokenizer(home)
    speech = hf_speech(described.values.get("template"), tokenizer.template, system_message)
    end_id = None if speech.turn_end is None else token_id(home, speech.turn_end)
    tokens = TokenFacts(_image_token(model, home), end_id)
    config = to_hf_config(
        described, _tensor_facts(model, planned), tokens, complement.described if complement else None
    )
    beside = hf_companions(described, tokenizer, speech, end_id, complement)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_to_hf(model, config),
        *beside.notes,
    )
    return Companions({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def custom_files(model: Model, planned: ModelPlan, home: Path, reference: str | Path | None) -> Companions:
    """The files of a custom checkpoint made from an HF one; as :func:`hf_files`. ``reference`` lends its modules."""
    described, complement = model.described, model.complement
    tokenizer = _read_tokenizer(home)
    files = read_hf_files(model.directory, tokenizer, remote_code(Path(reference)) if reference else [])
    beside_config = told_by_files(described, files, complement)
    old = complement.described if complement else None
    named = CONVERSATIONS.get(old.values.get("template") or "") if old else None
    end = turn_end(tokenizer.template or "") or (named.turn_end if named else None)
    end_id = None if end is None else token_id(home, end)
    config, assumed = to_custom_config(described, _tensor_facts(model, planned), beside_config, end_id, old)
    beside = custom_companions(config, files, complement)
    told = notes_to_custom(model, {name: config[name] for name in assumed}, home)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *told,
        *beside.notes,
    )
    return Companions({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def portable_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> Companions:
    """The files of an HF checkpoint made portable; as :func:`hf_files`, but a tokenizer may be missing."""
    described = model.described
    tokenizer = _read_tokenizer(home)
    has_tokens = tokenizer.has_vocabulary or home != model.directory
    image = _image_token(model, home) if has_tokens else described.values.get("image_token_id", 151667)
    tokens = TokenFacts(image, portable_turn_end(described, tokenizer))
    config = portable_config(described, _tensor_facts(model, planned), tokens)
    beside = portable_companions(described, tokenizer, config, system_message)
    notes = (
        *_tokenizer_note(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *beside.notes,
    )
    text = described.file.text if config == described.file.values else as_text(config)
    return Companions({**beside.texts, CONFIG_FILE: text}, beside.copies, notes)


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
    described, complement = model.described, model.complement
    made = describe(ConfigFile(Path(CONFIG_FILE), "", config), model.specs, described.family)
    if made.dims != described.dims:
        raise ConfigError(
            f"{described.file.path} and the sidecar or reference describe models of different sizes.",
            "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
        )
    if complement is not None and config == complement.described.file.values:
        return complement.files[CONFIG_FILE]
    return as_text(config)


def _image_token(model: Model, tokenizer_home: Path) -> int:
    """The id of ``<IMG_CONTEXT>``, which the model, like those of the tokens around it, must have embeddings for."""
    ids = {token: required_token_id(tokenizer_home, token) for token in (IMAGE_CONTEXT, IMAGE_START, IMAGE_END)}
    embeddings = model.described.dims.text.vocab
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
