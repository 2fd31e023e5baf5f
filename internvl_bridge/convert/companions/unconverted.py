"""What becomes of the source's files that the output does not have: kept in the sidecar, or left behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.weights import INDEX_FILES, weights_place
from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.files import CHAT_FILES, TOKENIZER_FILES, is_text_name, small_texts
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, repaired_contents, sidecar_contents
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.source_shards import HEADER_SUFFIX


@dataclass(frozen=True, slots=True)
class UnconvertedFiles:
    """The contents of the sidecar, and the names of the source's files that are nowhere in the output."""

    sidecar: Mapping[str, Any]
    left_behind: tuple[str, ...]


def unconverted_files(
    model: Model, planned: ModelPlan, companions: CompanionFiles, home: Path, wanted: Format
) -> UnconvertedFiles:
    """What becomes of the files of ``model`` that ``companions``, the files of the output, do not have.

    ``home`` is where the output's tokenizer is from: the files of another one are not the way back. A repair hands a
    usable sidecar on, and makes none.
    """
    source = model.directory
    weights = {shard.path.name for shard in model.checkpoint.shards}
    used = {SIDECAR_FILE, *INDEX_FILES, *weights, *(name + HEADER_SUFFIX for name in weights)}
    used |= {path.name for path in companions.copies if path.parent == source}
    if wanted is model.format:
        handed_on = any(path.name == SIDECAR_FILE for path in companions.copies)
        sidecar, kept = repaired_contents(source) if handed_on else {}, {*companions.texts}
    else:
        replaced = set() if home == source else {*TOKENIZER_FILES}
        surely = {*companions.texts, *CHAT_FILES} - replaced
        texts = small_texts(source, without=used | replaced, surely=surely)
        made = {name: text for name, text in companions.texts.items() if name not in replaced}
        family, head = model.description.family.name, planned.head.value
        sidecar = sidecar_contents(model.format, family, texts, made, head, planned.plan.recipes)
        kept = {*texts}
    there = {path.name for path in source.iterdir() if not path.name.startswith(".")}
    there -= {weights_place(model.source.weights).name}
    if model.source.config is not None:
        there = {name for name in there if is_text_name(name)}  # the weights beside them are not the source's
    return UnconvertedFiles(sidecar, tuple(sorted(there - used - kept)))
