"""How a model is meant to be used, as the small files beside its weights say it: its images and its prompts."""

from dataclasses import dataclass

from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.chat.template import conversation_name
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.fields import side_of
from internvl_bridge.metadata.config.tiling import (
    Tiling,
    custom_tiling,
    hf_tiling,
    tile_side,
    tokens_of_side,
    top_tiling,
)
from internvl_bridge.metadata.files import present
from internvl_bridge.metadata.json_files import is_present, read_json_file
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES, PREPROCESSOR_FILE, image_processor
from internvl_bridge.metadata.tokenizer.files import read_tokenizer_files


@dataclass(frozen=True, slots=True)
class Usage:
    """How images and prompts become tokens.

    ``image_size`` is the side of a tile, in pixels. An image becomes ``smallest`` to ``largest`` tiles, each of them
    ``tokens_per_tile`` tokens; the numbers of tiles are None where no file states them. ``template`` is the name of the
    conversation, None if there is none that is known. ``ps_version`` is that of the pixel shuffle. The HF format
    has only "v2". ``tokenizer`` and ``processor`` say whether their files are there.
    """

    image_size: int
    smallest: int | None
    largest: int | None
    tokens_per_tile: int
    template: str | None
    ps_version: str
    tokenizer: bool
    processor: bool


def usage_of(description: ModelDescription) -> Usage:
    """How the model of ``description`` is used. Raises CompanionFileError for files that cannot be read."""
    home, values = description.file.path.parent, description.values
    tokenizer = read_tokenizer_files(home)
    if description.format is Format.CUSTOM:
        tiling: Tiling | None = custom_tiling(values)
        side, template = tile_side(values), values.get("template")
        version, processor = values.get("ps_version", "v1"), is_present(home / PREPROCESSOR_FILE)
    else:
        files = {path.name: read_json_file(path).values for path in present(home, HF_PROCESSOR_FILES)}
        side = side_of(values["vision_config"].get("image_size", 448))
        tiling = hf_tiling(image_processor(files)) or top_tiling(values)
        named = description.family.chatml_template
        template = None if tokenizer.template is None else conversation_name(tokenizer.template, preferred=[named])
        version, processor = "v2", bool(image_processor(files))
    return Usage(
        image_size=side,
        smallest=None if tiling is None else tiling.smallest,
        largest=None if tiling is None else tiling.largest,
        tokens_per_tile=tokens_of_side(side, values),
        template=template,
        ps_version=version,
        tokenizer=tokenizer.has_vocabulary,
        processor=processor,
    )
