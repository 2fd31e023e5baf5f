"""Decide everything about a conversion and prove it, before anything is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from internvl_bridge.byte_plan import in_source_shards
from internvl_bridge.checked_plan import CheckedPlan
from internvl_bridge.errors import ConfigError, ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.metadata.chat_template import turn_end
from internvl_bridge.metadata.companions import Companions
from internvl_bridge.metadata.config_file import CONFIG_FILE, ConfigFile, Format, as_text, read_json_file
from internvl_bridge.metadata.conversations import CONVERSATIONS
from internvl_bridge.metadata.custom_directory import custom_companions, read_hf_files, told_by_files
from internvl_bridge.metadata.described import describe
from internvl_bridge.metadata.files import SPEECH_FILES, TOKENIZER_FILES, has_tokenizer, remote_code, small_texts
from internvl_bridge.metadata.hf_directory import hf_companions
from internvl_bridge.metadata.hf_speech import hf_speech
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, sidecar_text
from internvl_bridge.metadata.tokenizer import required_token_id, token_id
from internvl_bridge.metadata.tokenizer_config import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from internvl_bridge.metadata.tokenizer_files import TokenizerFiles, read_tokenizer_files
from internvl_bridge.metadata.tokenizer_json import check_whole
from internvl_bridge.metadata.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config
from internvl_bridge.model import Model, plan_conversion, read_model
from internvl_bridge.notes import notes_to_custom, notes_to_hf
from internvl_bridge.sizes import parse_size
from internvl_bridge.storage.checkpoint import INDEX_FILE, has_weights
from internvl_bridge.storage.layout import (
    FileJob,
    aligned,
    by_name,
    file_jobs,
    index_of,
    needs_index,
    reshard,
)
from internvl_bridge.storage.publishing import check_output

_LONGEST_MESSAGE = 100_000

Order = Literal["source", "name"]


@dataclass(frozen=True, slots=True)
class Options:
    """What :func:`to_hf` and :func:`to_custom` let their callers choose."""

    reference: str | Path | None = None
    tokenizer: str | Path | None = None
    system_message: str | None = None
    max_shard_size: int | str | None = None
    order: Order = "source"
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion, decided and proved; nothing has been written.

    ``jobs`` are the safetensors files and ``index`` the contents of their index; ``texts`` are other
    files, by name, with their contents, and ``copies`` files to copy as they are. ``left_behind`` are files of the
    source that the output has neither as they are, nor converted, nor in its sidecar.
    """

    model: Model
    output: Path
    plan: Plan
    jobs: tuple[FileJob, ...]
    index: Mapping[str, object] | None
    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    left_behind: tuple[str, ...]
    notes: tuple[str, ...]
    reference: Path | None
    verify: bool

    @property
    def data_bytes(self) -> int:
        return sum(job.data_size for job in self.jobs)

    @property
    def files(self) -> tuple[str, ...]:
        weights = [job.name for job in self.jobs] + ([INDEX_FILE] if self.index else [])
        return tuple(sorted({*weights, *self.texts, *(path.name for path in self.copies)}))


def prepare(source: str | Path, output: str | Path, wanted: Format, options: Options) -> Conversion:
    """Decide everything about a conversion and prove it; write nothing."""
    source, output = Path(source), Path(output)
    if options.order not in get_args(Order):
        raise ConfigError(f"{options.order!r} is not an order.", "Use 'source' or 'name'.")
    _check_message(options.system_message or "")
    limit = None if options.max_shard_size is None else parse_size(options.max_shard_size)
    reference = None if options.reference is None else Path(options.reference)
    model = read_model(source, reference)
    if model.format is wanted:
        raise UnsupportedModelError(
            f"{source} is already in the {wanted.value} format.",
            f"Use 'internvl-bridge {model.direction.value}' to convert it into the other one.",
        )
    check_output(source, output)
    if reference is not None and has_weights(reference):
        read_model(reference)  # a reference that cannot be compared with must not surprise at the end
    checked = plan_conversion(model)
    shards = in_source_shards(checked.plan, model.checkpoint)
    shards = shards if limit is None else reshard(shards, limit)
    jobs = file_jobs([by_name(shard) if options.order == "name" else aligned(shard) for shard in shards])

    home = _tokenizer_home(source, reference, options.tokenizer)
    beside = _files(model, checked, options, reference, home)
    used = {INDEX_FILE, SIDECAR_FILE, *(shard.path.name for shard in model.checkpoint.shards)}
    used |= {path.name for path in beside.copies if path.parent == source}
    replaced = () if home == source else TOKENIZER_FILES
    kept = small_texts(source, without={*used, *replaced}, surely={*beside.texts, *SPEECH_FILES} - {*replaced})
    made = {name: text for name, text in beside.texts.items() if name not in replaced}
    return Conversion(
        model=model,
        output=output,
        plan=checked.plan,
        jobs=tuple(jobs),
        index=index_of(jobs, model.checkpoint.index_metadata) if needs_index(jobs) else None,
        texts={**beside.texts, SIDECAR_FILE: sidecar_text(model.format, model.described.family.name, kept, made)},
        copies=beside.copies,
        left_behind=tuple(sorted({path.name for path in source.iterdir()} - used - kept.keys())),
        notes=beside.notes,
        reference=reference,
        verify=options.verify,
    )


def _check_message(message: str) -> None:
    """Raise ConfigError if ``message`` could not be written: an argument that was not UTF-8, or all of a file."""
    if len(message) > _LONGEST_MESSAGE or re.search("[\ud800-\udfff]", message):
        raise ConfigError(
            f"The system message is not valid Unicode, or has more than {_LONGEST_MESSAGE} characters.",
            "State a shorter one, in the encoding of this system.",
        )


def _files(model: Model, checked: CheckedPlan, options: Options, reference: Path | None, home: Path) -> Companions:
    """Everything beside the weights and the sidecar; ``home`` is where the tokenizer is."""
    if model.format is Format.CUSTOM:
        return _hf_files(model, checked, home, options.system_message)
    code = remote_code(reference) if reference else []
    return _custom_files(model, checked, home, code)


def _hf_files(model: Model, checked: CheckedPlan, home: Path, system_message: str | None) -> Companions:
    described, complement = model.described, model.complement
    tokenizer = _read_tokenizer(home)
    speech = hf_speech(described.values.get("template"), tokenizer.template, system_message)
    end_id = None if speech.turn_end is None else token_id(home, speech.turn_end)
    tokens = TokenFacts(_image_token(model, home), end_id)
    config = to_hf_config(
        described, _tensor_facts(model, checked), tokens, complement.described if complement else None
    )
    beside = hf_companions(described, tokenizer, speech, end_id, complement)
    notes = (*_tokenizer_note(model, home), *notes_to_hf(model, checked, config), *beside.notes)
    return Companions({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def _custom_files(model: Model, checked: CheckedPlan, home: Path, code: list[Path]) -> Companions:
    described, complement = model.described, model.complement
    tokenizer = _read_tokenizer(home)
    files = read_hf_files(model.directory, tokenizer, code)
    beside_config = told_by_files(described, files, complement)
    old = complement.described if complement else None
    named = CONVERSATIONS.get(old.values.get("template") or "") if old else None
    end = turn_end(tokenizer.template or "") or (named.turn_end if named else None)
    end_id = None if end is None else token_id(home, end)
    config, assumed = to_custom_config(described, _tensor_facts(model, checked), beside_config, end_id, old)
    beside = custom_companions(config, files, complement)
    told = notes_to_custom(model, {name: config[name] for name in assumed}, home)
    notes = (*_tokenizer_note(model, home), *told, *beside.notes)
    return Companions({**beside.texts, CONFIG_FILE: _config_text(model, config)}, beside.copies, notes)


def _tensor_facts(model: Model, checked: CheckedPlan) -> TensorFacts:
    return TensorFacts(tied=checked.tied, mxfp4=checked.mxfp4, dtype=model.dtype)


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


def _tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not has_tokenizer(home):
            raise ConfigError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return source if home.samefile(source) else home
    return reference if reference is not None and not has_tokenizer(source) else source
