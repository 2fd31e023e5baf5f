"""What the owner of a source should know about its weights and its config.json, whatever it becomes."""

from collections.abc import Iterator, Mapping

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.errors import first_few
from internvl_bridge.metadata.config.agreement import differing_fields
from internvl_bridge.metadata.config.forks import unknown_fields
from internvl_bridge.notes import Warn, called
from internvl_bridge.storage.unfinished import holes


def fields_that_differ(model: Model) -> Mapping[str, str]:
    """The fields of config.json that change what the model computes, and that the other format states differently."""
    return {} if model.other_format is None else differing_fields(model.description, model.other_format.description)


def notes_on_source(model: Model, fields: Mapping[str, str]) -> Iterator[str]:
    """Warnings of ``fields`` that differ, of those that nobody knows, and of weights that nobody has written."""
    yield from model.remarks
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
    if found := holes(model.checkpoint.tensors):
        yield Warn(
            f"{len(found)} tensors are holes of their files, and read as zeros: {first_few(found)}. Their download or "
            f"copy is not complete, or a copy left out what is zero."
        )
