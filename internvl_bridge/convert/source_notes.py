"""What the owner of a source should know about its weights and its config.json, whatever it becomes."""

from collections import Counter
from collections.abc import Iterator, Mapping

from internvl_bridge.checkpoint.model import TORCH_NAMES, Model
from internvl_bridge.errors import first_few
from internvl_bridge.metadata.config.agreement import differing_fields
from internvl_bridge.metadata.config.forks import unknown_fields
from internvl_bridge.notes import Warn, called
from internvl_bridge.storage.unfinished import holes


def fields_that_differ(model: Model) -> Mapping[str, str]:
    """The fields of config.json that change what the model computes, and that the other format states differently."""
    return {} if model.other_format is None else differing_fields(model.description, model.other_format.description)


def notes_on_source(model: Model, fields: Mapping[str, str], *, keeps_dtypes: bool = True) -> Iterator[str]:
    """Warnings of ``fields`` that differ, of those that nobody knows, and of weights that nobody has written.

    ``keeps_dtypes``: the output has the dtypes of the source.
    """
    yield from model.remarks
    if keeps_dtypes:
        yield from _notes_on_dtypes(model)
    if unknown := unknown_fields(model.description.file, model.format):
        yield Warn(
            f"config.json has fields that InternVL does not know: {first_few(unknown)}. If a fork has them, its code "
            f"may compute something else than the converted model."
        )
    if model.other_format is not None and fields:
        values = ", ".join(f"{name} ({both})" for name, both in fields.items())
        code = " The exit code will be 1, unless --accept fields is given." if model.other_format.is_reference else ""
        yield Warn(
            f"config.json and {called(model.other_format.origin)} disagree about what the model computes: {values}. "
            f"The output has the values of config.json.{code}"
        )
    if model.has_all_data and (found := holes(model.checkpoint.tensors)):
        yield Warn(
            f"{len(found)} tensors are holes of their files, and read as zeros: {first_few(found)}. Their download or "
            f"copy is not complete, or a copy left out what is zero."
        )


def _notes_on_dtypes(model: Model) -> Iterator[str]:
    """What loaders make of weights in several dtypes, or in another one than config.json states.

    transformers 5 loads all weights in the dtype that config.json states, as vLLM, SGLang and LMDeploy do; transformers
    4 in float32, unless it is told otherwise.
    """
    counts = Counter(spec.dtype for spec in model.specs.values())
    if not counts.keys() <= TORCH_NAMES.keys():  # quantised: its parts have dtypes of their own
        return
    stated = model.description.values.get("torch_dtype") or model.dtype
    if len(counts) > 1:
        rarest = min(counts, key=lambda dtype: (counts[dtype], dtype))
        example = next(key for key, spec in model.specs.items() if spec.dtype == rarest)
        listed = ", ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
        yield (
            f"The tensors are of several dtypes ({listed}; {example} is in {rarest}), and so are those of the output. "
            f"What loads it makes them all {stated}, as config.json says, unless it is told otherwise."
        )
    elif stated != model.dtype:
        yield (
            f"The weights are in {model.dtype}, but config.json says {stated}. What loads the output makes them "
            f"{stated}, unless it is told otherwise (in transformers: dtype={model.dtype!r})."
        )
