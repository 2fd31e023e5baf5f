"""What a checkpoint of the source's own format holds beside its weights: the source's small files, as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.weights import INDEX_FILES, weights_place
from internvl_bridge.convert.companions.shared import TRAINER_STATES, CompanionFiles, without_byte_order_marks
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_FILES, present, small_texts
from internvl_bridge.metadata.json_files import CONFIG_FILE
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, repaired_contents

_SCRIPTS = ("zero_to_fp32.py",)


@dataclass(frozen=True, slots=True)
class SameFiles:
    """The files beside the weights, what the sidecar hands on, and the names of what is left behind."""

    companions: CompanionFiles
    sidecar: Mapping[str, Any]
    left_behind: tuple[str, ...]


def same_files(model: Model, config: str) -> SameFiles:
    """The files of an output in the format of ``model``, whose config.json has the text ``config``."""
    home = model.directory
    names = {path.name for path in home.iterdir() if not path.name.startswith(".")}
    states = {name for name in names if name.startswith(TRAINER_STATES) and not name.endswith(".py")}
    states |= names & {*_SCRIPTS}
    handled = {CONFIG_FILE, SIDECAR_FILE, *INDEX_FILES}
    known = present(home, (*TOKENIZER_FILES, *HF_PROCESSOR_FILES, GENERATION_FILE, *LEGAL_FILES))
    small = (home / name for name in small_texts(home, without=handled | states))
    copies = tuple(dict.fromkeys((*known, *small)))
    weights = {shard.path.name for shard in model.checkpoint.shards if shard.path.parent == home}
    left = names - handled - weights - {path.name for path in copies} - {weights_place(model.source.weights).name}
    companions = without_byte_order_marks(CompanionFiles({CONFIG_FILE: config}, copies, ()))
    sidecar = {} if model.other_format is None else repaired_contents(home)
    return SameFiles(companions, sidecar, tuple(sorted(left)))
