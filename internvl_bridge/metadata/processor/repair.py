"""The processor's files of an HF directory, whichever version saved them, as transformers 4 and 5 both read them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError, shown
from internvl_bridge.mapping import value_checks
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.tiling import Tiling, hf_tiling, tile_side_for, tokens_of_side
from internvl_bridge.metadata.files import present
from internvl_bridge.metadata.json_files import Config, JsonFile, as_text, read_json_file
from internvl_bridge.metadata.processor.files import (
    CLASSES,
    HF_PROCESSOR_FILES,
    IMAGE_CLASS,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    VIDEO_CLASS,
    VIDEO_FILE,
    hf_processor_files,
    video_processor,
)
from internvl_bridge.notes import Warn

_USUAL = Tiling(1, 12)
_DEFAULT_SIZE = 384
_SECTIONS = {PREPROCESSOR_FILE: "image_processor", VIDEO_FILE: "video_processor"}
_SLOW = (IMAGE_CLASS, f"{IMAGE_CLASS}Pil")
_USABLE = {PREPROCESSOR_FILE: (None, f"{IMAGE_CLASS}Fast", *_SLOW), VIDEO_FILE: (None, VIDEO_CLASS)}


def repaired_processor(
    hf: ModelDescription, tokens: int, known: Tiling | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The processor's files for ``hf``, whose config.json says that a tile becomes ``tokens``; and notes.

    What the source's files state is kept. It can be in transformers 4's three files or in the sections of transformers
    5's one. What they leave out means the same to both. Where there is no image processor, one is made, with the
    tiling that is ``known`` or else upstream's usual one.

    Raises CompanionFileError if a file is malformed. Also raises it if an image processor has to be made and no square
    becomes ``tokens``.
    """
    files = {path.name: read_json_file(path) for path in present(hf.file.path.parent, HF_PROCESSOR_FILES)}
    parts = [_part(files, name) for name in _SECTIONS]
    image, video = (part.values if part.is_usable else {} for part in parts)
    hf_tiling(image)  # refuses numbers by which no image can be cut
    notes = [note for part in parts for note in _notes_on_class(part)]
    if not image:
        side = tile_side_for(tokens, hf.values)
        image = hf_processor_files(side, tokens, known or _USUAL)[PREPROCESSOR_FILE]
        notes += [] if known else [_assumed(side)]
    processor = {"image_seq_length": tokens, **_without_sections(files)}
    notes += _notes_on_tokens(hf, tokens, processor, image)
    wanted = zip(HF_PROCESSOR_FILES, (processor, image, video or video_processor(image)), strict=True)
    return {name: _text(files.get(name), {**part, **CLASSES[name]}) for name, part in wanted}, tuple(notes)


@dataclass(frozen=True, slots=True)
class _Part:
    """What the file at ``path`` says of what transformers 4 keeps in the file ``name``."""

    name: str
    path: Path
    values: Config

    @property
    def class_name(self) -> Any:
        """The class that it is for; None if it leaves that to config.json."""
        if self.name == VIDEO_FILE:
            return self.values.get("video_processor_type")
        return self.values.get("image_processor_type") or self.values.get("feature_extractor_type")

    @property
    def is_usable(self) -> bool:
        """Whether it is for a class that InternVL's processor can use."""
        return self.class_name in _USABLE[self.name]


def _part(files: Mapping[str, JsonFile], name: str) -> _Part:
    """The part called ``name``, empty if ``files`` do not have it; a section of transformers 5's wins, as there."""
    whole, file = files.get(PROCESSOR_FILE), files.get(name)
    section = whole.values.get(_SECTIONS[name]) if whole else None
    if whole and isinstance(section, dict) and section:
        return _Part(name, whole.path, section)
    return _Part(name, file.path, file.values) if file else _Part(name, Path(name), {})


def _without_sections(files: Mapping[str, JsonFile]) -> Config:
    values = files[PROCESSOR_FILE].values if PROCESSOR_FILE in files else {}
    return {name: value for name, value in values.items() if name not in _SECTIONS.values()}


def _text(file: JsonFile | None, part: Config) -> str:
    """The text that says ``part``: the source's own, if it does."""
    values = {name: value for name, value in sorted(part.items()) if name != "auto_map"}  # a module that is left behind
    return file.text if file is not None and file.values == values else as_text(values)


def _assumed(side: int) -> str:
    return Warn(
        f"No file states how images are cut into tiles. The output has upstream's usual way: into {_USUAL.smallest} to "
        f"{_USUAL.largest} of {side} pixels, and a thumbnail. If the model was trained otherwise, correct min_patches "
        f"and max_patches in {PREPROCESSOR_FILE}."
    )


def _notes_on_class(part: _Part) -> Iterator[str]:
    if not part.is_usable:
        yield Warn(
            f"{part.path.name} is for the class {shown(part.class_name)}, which InternVL's processor cannot use. What "
            f"it says is left out, and {part.name} is made anew."
        )
    elif part.class_name in _SLOW and (part.class_name != IMAGE_CLASS or part.path.name == part.name):
        # transformers 5 calls by this name what is "Fast" in 4
        yield (
            f"{part.path.name} is for {part.class_name}, which cuts images with PIL. The output's {part.name} names "
            f"{CLASSES[part.name]['image_processor_type']}, which both versions know. Its pixels differ slightly."
        )


def _notes_on_tokens(hf: ModelDescription, tokens: int, processor: Config, image: Config) -> Iterator[str]:
    """Whether config.json, the processor and the size of its tiles agree.

    Raises CompanionFileError for a count that is not a number of tokens.
    """
    path, stated = hf.file.path.parent / PROCESSOR_FILE, processor["image_seq_length"]
    if not value_checks.positive(stated):
        raise CompanionFileError(
            f"{path} has image_seq_length {shown(stated)}, which is not a number of tokens.",
            f"Correct it: config.json says {tokens}.",
        )
    side = _side(image)
    cut = stated if side is None else tokens_of_side(side, hf.values)
    if {stated, cut} != {tokens}:
        of_size = "" if side is None else f", and the image processor's tiles of {side} pixels become {cut}"
        yield Warn(
            f"config.json says that a tile becomes {tokens} tokens, {path.name} says {stated}{of_size}. Each is kept "
            f"as it is: correct those that are wrong, or images fail."
        )


def _side(image: Config) -> int | None:
    """The side of the image processor's tiles in pixels, None if they are not squares."""
    match image.get("size", _DEFAULT_SIZE):
        case {"height": side, "width": other} if side == other and value_checks.positive(side):
            return int(side)
        case side if value_checks.positive(side):
            return int(side)
        case _:
            return None
