"""What the directions share: the files next to the weights as a value, and what is done alike for each."""

import codecs
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.errors import ConfigError, ContradictionError, OptionError, first_few
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.translation import TensorFacts
from internvl_bridge.metadata.files import (
    CHAT_FILES,
    LEGAL_FILES,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    has_tokenizer,
    present,
)
from internvl_bridge.metadata.json_files import CONFIG_FILE, JsonFile, as_text, read_json_file
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles, can_load, read_tokenizer_files
from internvl_bridge.metadata.tokenizer.token_ids import required_token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT, IMAGE_END, IMAGE_START
from internvl_bridge.metadata.tokenizer.tokenizer_json import check_whole
from internvl_bridge.notes import Warn, called
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.strict_json import without_mark

TRAINER_STATES = ("trainer_state", "training_args", "optimizer", "scheduler", "rng_state", "adapter_config")
"""How the names begin of a trainer's states, and of an adapter's config, for which transformers would load more."""


@dataclass(frozen=True, slots=True)
class CompanionFiles:
    """``texts`` by name, ``copies`` of files as they are, and ``notes`` about what deserves attention."""

    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    notes: tuple[str, ...]


def without_byte_order_marks(files: CompanionFiles) -> CompanionFiles:
    """``files`` with texts instead of copies where a JSON file starts with a mark, which no reader of JSON accepts."""
    marked = [path for path in files.copies if path.suffix == ".json" and _starts_with_mark(path)]
    texts = {path.name: without_mark(path.read_bytes()).decode() for path in marked}
    return replace(files, texts={**files.texts, **texts}, copies=tuple(p for p in files.copies if p not in marked))


def _starts_with_mark(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF8))
    return start == codecs.BOM_UTF8


def restored_tokenizer(other_format: OtherFormat | None, home: Path) -> dict[str, str]:
    """The tokenizer's files that a sidecar keeps, if those made from them in ``home`` are untouched; else none.

    None, too, if they cannot be loaded without a file that was in ``home`` and is gone.
    """
    texts = other_format.restored(home, TOKENIZER_FILES, CHAT_FILES) if other_format else None
    if other_format is None or not texts:
        return {}
    carried = [path.name for path in carried_files(home, home, without=other_format.written)]
    config = json.loads(texts.get(TOKENIZER_CONFIG_FILE, "{}"))
    return texts if can_load(config, [*texts, *carried]) else {}


def restored_generation(other_format: OtherFormat | None, directory: Path) -> dict[str, str] | None:
    """generation_config.json as it was (nothing, if there was none); None if it was not made or was touched."""
    return other_format.restored(directory, [GENERATION_FILE]) if other_format else None


def carried_files(source: Path, tokenizer_home: Path, without: Collection[str]) -> tuple[Path, ...]:
    """The files that both formats have alike: the vocabulary's of one directory, the others of another."""
    found = [*present(tokenizer_home, VOCABULARY_FILES), *present(source, LEGAL_FILES)]
    return tuple(path for path in found if path.name not in without)


def others(other_format: OtherFormat | None, known: Collection[str]) -> dict[str, str]:
    """The texts that a sidecar keeps for no other reason than that they were there."""
    if other_format is None:
        return {}
    return {name: text for name, text in other_format.files.items() if name not in {*known, *TOKENIZER_FILES}}


def tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not home.is_dir():
            refusal = not_a_directory(home)
            raise OptionError(f"For the tokenizer: {refusal.reason}", refusal.remedy)
        if not has_tokenizer(home):
            raise OptionError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return source if home.samefile(source) else home
    return reference if reference is not None and not has_tokenizer(source) else source


def read_whole_tokenizer(home: Path) -> TokenizerFiles:
    """The tokenizer in ``home``. Raises CompanionFileError if a file of it is malformed or cut off."""
    tokenizer = read_tokenizer_files(home)
    if tokenizer.has_json:
        check_whole(home / "tokenizer.json")
    elif tokenizer.has_pairs:
        read_json_file(home / "vocab.json")
    return tokenizer


def notes_on_tokenizer_home(model: Model, home: Path) -> list[str]:
    """Whose tokenizer the output has, if it is not the source's."""
    return (
        []
        if home == model.directory
        else [f"The tokenizer is that of {called(home)}, not of {called(model.directory)}."]
    )


def image_token(model: Model, tokenizer_home: Path) -> int:
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


def tensor_facts(model: Model, planned: ModelPlan) -> TensorFacts:
    """What the tensors of ``model`` say that no config can overrule."""
    return TensorFacts(tied=planned.tied, packed=planned.packed, dtype=model.dtype)


def config_text(model: Model, config: Mapping[str, object]) -> str:
    """The text of the output's config.json: that of the other format's own file, where it says the same.

    Raises ConfigError if the other format describes a model of other sizes.
    """
    description, other_format = model.description, model.other_format
    made = describe(JsonFile(Path(CONFIG_FILE), "", config), model.specs, description.family)
    if made.dims != description.dims:
        raise ConfigError(
            f"{description.file.path} and the sidecar or reference describe models of different sizes.",
            "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
        )
    if other_format is not None and config == other_format.description.file.values:
        return other_format.files[CONFIG_FILE]
    return as_text(config)


def notes_on_tensors(model: Model, planned: ModelPlan) -> Iterator[str]:
    """How weights are quantised, what became of the output head, and what the trainer dumped beside the weights."""
    tie = planned.tie
    if packing := planned.linear_packing:
        copied = f"The language model is quantised ({packing.name}). Its packed tensors are copied as they are."
        tried = f"{copied} We have not loaded such an output (this takes a GPU): try it before you rely on it."
        stacked = (
            f"{copied} transformers 5 stacks experts, and does not load those that bitsandbytes has packed. Use "
            f"version 4 for this output."
        )
        if packing.method == "bitsandbytes" and model.description.family.experts:
            yield Warn(stacked)
        else:
            yield copied if packing.was_loaded else Warn(tried)
    if planned.adds_head:
        yield (
            f"The model is tied (its input embeddings serve as output head): {tie.head} is a copy of {tie.embeddings}. "
            f"to-hf drops it again, as long as both are equal. '--tied keep' writes none."
        )
    if planned.drops_head and not model.has_all_data and model.source.head_is_copy is None:
        yield (
            f"config.json says that the model is tied. Whether its output head is a copy of its input embeddings was "
            f"not looked at: {planned.tie.head} was taken for one. A conversion compares them."
        )
    elif planned.drops_head:
        yield (
            f"config.json says that the model is tied, and its output head equals its input embeddings bit for bit: "
            f"{tie.head} is not written."
        )
    if planned.head is OutputHead.OWN and model.description.may_be_tied:
        yield Warn(
            "config.json says that the output head is the input embeddings. But the checkpoint has a head of its own, "
            "which differs. That head is used, and the output's config.json says that the model is not tied."
        )
    if model.weights.left_out:
        yield f"Left out, as no weights of the model: {first_few(model.weights.left_out)}."
