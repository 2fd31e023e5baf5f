"""Name the weights of an HF checkpoint that a version of transformers replaced by random ones, in silence."""

import re
import struct
from array import array
from collections.abc import Iterator

from internvl_bridge.checkpoint.byte_ranges import target_tensors
from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.random_matrix import Rows, is_correlated, looks_random
from internvl_bridge.checkpoint.weights import stored_plan
from internvl_bridge.errors import first_few
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec
from internvl_bridge.mapping.routes import Route, renamed
from internvl_bridge.mapping.schema import EMBEDDINGS
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE, KeySpelling, spelled
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.notes import Warn
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.reading import FileReader

_SAMPLE, _SAMPLE_ROWS = 16_384, 128
"""Elements that are read of a matrix, and the rows in which they lie: enough to compare rows and to compare columns."""
_MATRICES = 8
"""Matrices of experts that are looked at."""
_TRAINED = (EMBEDDINGS, "language_model.model.layers.0.self_attn.o_proj.weight")
"""What no version of transformers ever replaced: if these are random too, so is the whole model, and means to be."""
_REPLACES_EXPERTS = re.compile(r"5\.[0-3]\.")


def notes_on_untrained(model: Model, planned: ModelPlan) -> Iterator[str]:
    """What cannot be brought back: an output head and experts that look as if they had just been initialised.

    Reads a few rows of some matrices. Only HF checkpoints whose weights are not quantised can have such weights.
    """
    if model.format is Format.CUSTOM or planned.linear_packing or not model.has_all_data:
        return
    if any(_looks_random(model, key) for key in _control(model, model.keys)):
        return
    tie = tied_head(model.description.family, model.description.dims.text, model.keys)
    alone = planned.head is OutputHead.OWN and _looks_random(model, tie.head)
    if alone and not is_correlated(sampled(model, tie.head), sampled(model, tie.embeddings)):
        yield _head_note(model, tie.head)
    experts = _experts(model, model.keys)
    if experts and all(_looks_random(model, key) for key in experts):
        yield Warn(
            f"The experts look like the random numbers that a new model starts from ({first_few(experts)} were looked "
            f"at). transformers 5.0 to 5.3 replace them by such numbers when they load one tensor per expert. 4.x does "
            f"so when it loads fused experts. Nothing here brings the trained ones back: they are in the checkpoint "
            f"that was loaded then."
        )
    elif experts and _REPLACES_EXPERTS.match(str(model.description.values.get("transformers_version"))):
        yield Warn(
            f"transformers {model.description.values['transformers_version']} wrote this checkpoint. That version "
            f"replaces experts by random numbers when it loads one tensor per expert. These do not look random, but "
            f"training hides it. If they were loaded in that way, compare them with those of the base model "
            f"('internvl-bridge verify')."
        )


def sampled(model: Model, key: str) -> Rows:
    """The starts of some rows of the tensor ``key``, evenly spaced; all dimensions but the last count as rows."""
    spec = model.specs[key]
    width = spec.shape[-1]
    rows = min(spec.elements // width, _SAMPLE_ROWS)
    columns = min(width, _SAMPLE // rows)
    starts = (spec.elements // width * number // rows * width for number in range(rows))
    runs = tuple(Run(key, start, start + columns) for start in starts)
    plan = stored_plan(Plan({key: spec}, {key: Recipe(TensorSpec(spec.dtype, (rows, columns)), runs)}), model.weights)
    [(_, target)] = target_tensors(plan, model.checkpoint)
    with FileReader() as readers:
        values = _decoded(spec.dtype, b"".join(map(bytes, readers.windows(target.ranges))))
    return [values[start : start + columns] for start in range(0, rows * columns, columns)]


def _control(model: Model, keys: KeySpelling) -> list[str]:
    route = Route(model.description.family, model.description.dims.text, MOST_COMPATIBLE, keys)
    return [renamed(route, key) for key in _TRAINED]


def _experts(model: Model, keys: KeySpelling) -> list[str]:
    """Some of the keys that hold experts of which transformers has two spellings, from all layers."""
    rows = spelled(model.description.family.expert_rows(keys.experts, None), keys.layout)
    patterns = [pattern for row in rows for pattern in row.hf_patterns]
    found = [key for key in model.specs if any(pattern.matches(key) for pattern in patterns)]
    count = min(_MATRICES, len(found))
    return [found[len(found) * n // count] for n in range(count)]


def _looks_random(model: Model, key: str) -> bool:
    deviation = model.description.text.get("initializer_range", 0.02)
    return deviation > 0 and looks_random(sampled(model, key), deviation)


def _head_note(model: Model, head: str) -> Warn:
    looks = f"{head} looks like the random numbers that a new model starts from"
    if not model.description.may_be_tied:
        return Warn(
            f"{looks}. It was not trained, or transformers made it up because the checkpoint that was loaded had none. "
            f"Nothing here brings it back."
        )
    return Warn(
        f"{looks}, and config.json calls the model tied. transformers 5.0 writes such a head after it has loaded a "
        f"tied checkpoint of version 4. Unless the model was trained with it, its head is its input embeddings: remove "
        f"{head} from the checkpoint, set tie_word_embeddings to true at both levels of config.json, and convert again."
    )


def _decoded(dtype: str, data: bytes) -> list[float]:
    """The numbers in ``data``, of a dtype that unquantised weights have."""
    if dtype == "BF16":  # the upper half of a float
        dtype, data = "F32", struct.pack(f"<{len(data) // 2}I", *(half << 16 for half in array("H", data)))
    return [number for (number,) in struct.iter_unpack({"F16": "<e", "F32": "<f", "F64": "<d"}[dtype], data)]
