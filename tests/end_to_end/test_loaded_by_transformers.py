"""Real transformers loads every file that a conversion writes, offline and in silence, and does what upstream did.

Runs in transformers 5 and in 4.57 (``make test-matrix``). What is expected is written by hand, computed by the
libraries beneath (tokenizers, sentencepiece, PIL), or upstream's own (``prompts.json``); never asked of the code that
is tested.
"""

import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from PIL import Image
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2
from silence import in_silence
from support import DATA, NAMES, copy_custom, edit_json
from tokenizers import Tokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    InternVLForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils import logging as transformers_logging

import internvl_bridge

# numpy asks tensors for a newer protocol than torch's, where transformers 4's InternVLProcessor adds up tiles.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")

transformers_logging.disable_progress_bar()

MAJOR = int(transformers.__version__.split(".")[0])
SIDE = 56  # of a tile of the stored checkpoints, in pixels
TOKENS = 4  # that a tile becomes: (56 / 14 / 2) squared
IMAGE_START, IMAGE_END, CONTEXT, VIDEO = 588, 589, 590, 597
VOCABULARY = 597  # of the stored tokenizers, of which the last nine tokens are InternVL's
IM_END = {"bpe": 474, "internlm2": 201}


def tokenizer_kind(name: str) -> str:
    return "internlm2" if name.startswith("internlm2") else "bpe"


Change = Callable[[Path], object]


def convert(directory: Path, name: str = "qwen2-300m", change: Change | None = None, **options: Any) -> Path:
    """The HF twin of a stored custom checkpoint, with ``change`` made to that; it lies beside, in ``custom``."""
    custom = copy_custom(name, directory / "custom")
    if change is not None:
        change(custom)
    internvl_bridge.to_hf(custom, directory / "hf", **options)
    return directory / "hf"


def configured(**fields: Any) -> Change:
    return lambda custom: edit_json(custom / "config.json", lambda config: config.update(fields))


def with_template(template: str | None) -> Change:
    """Give the tokenizer a chat template of its own, or none."""
    return lambda custom: edit_json(
        custom / "tokenizer_config.json", lambda config: config.update(chat_template=template)
    )


def both(*changes: Change) -> Change:
    return lambda custom: [change(custom) for change in changes]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The HF twin of a stored checkpoint, made once: not to be changed."""
    return cache(lambda name: convert(tmp_path_factory.mktemp("converted"), name))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An image in which no two rows, columns or channels are alike."""
    y, x = np.mgrid[:height, :width]
    channels = np.stack([(5 * x + y) % 256, (3 * y + 2 * x) % 256, (x * y + 7) % 256], axis=-1)
    return Image.fromarray(channels.astype(np.uint8)).convert(mode)


def image(width: int = SIDE, height: int = SIDE) -> dict[str, Any]:
    return {"type": "image", "image": picture(width, height)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def encode(processor: Any, *messages: dict[str, Any]) -> Any:
    return processor.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def runs(ids: list[int], token: int) -> list[int]:
    """How long each uninterrupted run of ``token`` is."""
    marked = "".join("x" if number == token else " " for number in ids)
    return [len(run) for run in marked.split()]


# --- Everything loads ---------------------------------------------------------------------------------------------

PROMPTS = json.loads((DATA / "prompts.json").read_text())
FIRST_TURN = PROMPTS["internvl2_5"]["cases"][0]["prompt"]


@pytest.mark.parametrize("name", NAMES)
def test_everything_loads_in_silence_and_an_image_goes_through(name: str, converted: Callable[[str], Path]):
    home = converted(name)
    with in_silence():
        config = AutoConfig.from_pretrained(home)
        tokenizer = AutoTokenizer.from_pretrained(home)
        processor = AutoProcessor.from_pretrained(home)
        model, loading = AutoModelForImageTextToText.from_pretrained(
            home, output_loading_info=True, dtype=torch.float32
        )
        inputs = encode(processor, user(image(2 * SIDE, SIDE), text("What is shown in this image?")))
        with torch.no_grad():
            logits = model.eval()(**inputs).logits
    assert not any(loading.values()), loading
    assert type(model) is InternVLForConditionalGeneration
    assert type(processor).__name__ == "InternVLProcessor"
    assert type(processor.tokenizer) is type(tokenizer)
    assert config.image_seq_length == processor.image_seq_length == TOKENS
    assert config.image_token_id == processor.image_token_id == CONTEXT

    assert inputs["pixel_values"].shape == (3, 3, SIDE, SIDE)  # two tiles and the thumbnail
    ids = inputs["input_ids"][0].tolist()
    expanded = FIRST_TURN.replace("<image>", f"<img>{'<IMG_CONTEXT>' * (3 * TOKENS)}</img>")
    assert ids == source_ids(tokenizer_kind(name))(expanded)
    assert logits.shape == (1, len(ids), 600)
    assert torch.isfinite(logits).all()


# --- Tiles --------------------------------------------------------------------------------------------------------

# Worked out by hand. Candidates are all grids of min to max tiles, fewest tiles first. The closest aspect ratio wins;
# of equals the later one, if the image has more than half of its pixels (a tile has 3136). Several tiles get a
# thumbnail.
TILES = {
    # 1x1; 2x2 would need more than 6272 pixels
    "a square of one tile": ({}, (56, 56), 1),
    "a smaller square": ({}, (30, 30), 1),
    # 2x2: 10000 > 6272; 3x3 would need more than 14112
    "a larger square": ({}, (100, 100), 4 + 1),
    "the largest square": ({}, (200, 200), 9 + 1),
    # 2x1; 4x2 would need more than 12544
    "2:1": ({}, (112, 56), 2 + 1),
    # 4x2: 45000 > 12544
    "a larger 2:1": ({}, (300, 150), 8 + 1),
    # 1x3; 2x6 would need more than 18816
    "1:3": ({}, (56, 168), 3 + 1),
    # 12x1 at most
    "a ribbon": ({}, (900, 20), 12 + 1),
    # 4x3 = 1.333 is exact
    "4:3": ({}, (400, 300), 12 + 1),
    # among at most six tiles, 2x1 alone has this ratio
    "a larger 2:1, of at most 6": ({"max_dynamic_patch": 6}, (300, 150), 2 + 1),
    "a ribbon, of at most 6": ({"max_dynamic_patch": 6}, (900, 20), 6 + 1),
    # among at least two tiles, 2x2 is the first square
    "a square, of at least 2": ({"min_dynamic_patch": 2}, (56, 56), 4 + 1),
    # 1x4, 2x2, 4x1 are 1.75, 1 and 2 away from 2
    "2:1, of exactly 4": ({"min_dynamic_patch": 4, "max_dynamic_patch": 4}, (112, 56), 4 + 1),
    "a larger 2:1, one tile at most": ({"max_dynamic_patch": 1}, (300, 150), 1),
    "a larger 2:1, not dynamic": ({"dynamic_image_size": False}, (300, 150), 1),
    "a larger square, not dynamic": ({"dynamic_image_size": False, "min_dynamic_patch": 4}, (200, 200), 1),
    # as the custom class has it, whose default is six
    "a ribbon, where nothing is stated": ({"max_dynamic_patch": None, "min_dynamic_patch": None}, (900, 20), 6 + 1),
}


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The processor of a checkpoint whose config.json has other values; None removes one."""

    @cache
    def make(fields: tuple[tuple[str, Any], ...]) -> Any:
        def change(config: dict[str, Any]) -> None:
            for name, value in fields:
                config.pop(name) if value is None else config.update({name: value})

        home = convert(
            tmp_path_factory.mktemp("tiling"), change=lambda custom: edit_json(custom / "config.json", change)
        )
        return AutoProcessor.from_pretrained(home)

    return lambda **fields: make(tuple(sorted(fields.items())))


@pytest.mark.parametrize("case", TILES)
def test_images_become_as_many_tiles_as_config_json_says(case: str, processors: Callable[..., Any]):
    fields, size, tiles = TILES[case]
    inputs = encode(processors(**fields), user(image(*size), text("What?")))
    assert inputs["pixel_values"].shape == (tiles, 3, SIDE, SIDE)
    ids = inputs["input_ids"][0].tolist()
    assert runs(ids, CONTEXT) == [tiles * TOKENS]
    assert ids.count(IMAGE_START) == ids.count(IMAGE_END) == 1
    assert ids.index(IMAGE_START) == ids.index(CONTEXT) - 1
    assert ids.index(IMAGE_END) == ids.index(CONTEXT) + tiles * TOKENS


def test_images_of_different_sizes_are_tiled_in_order(processors: Callable[..., Any]):
    processor = processors()
    small, wide, tall = image(), image(112, 56), image(56, 168)
    one = encode(processor, user(small, wide, text("What differs?")))
    assert runs(one["input_ids"][0].tolist(), CONTEXT) == [1 * TOKENS, 3 * TOKENS]
    other = encode(processor, user(wide, small, text("What differs?")))
    assert runs(other["input_ids"][0].tolist(), CONTEXT) == [3 * TOKENS, 1 * TOKENS]
    alone = [encode(processor, user(part, text("What?")))["pixel_values"] for part in (small, wide, tall)]
    assert torch.equal(one["pixel_values"], torch.cat([alone[0], alone[1]]))
    assert torch.equal(other["pixel_values"], torch.cat([alone[1], alone[0]]))

    answer = {"role": "assistant", "content": [text("A cat.")]}
    turns = encode(processor, user(tall, text("What?")), answer, user(text("And"), small, text("this?")))
    assert runs(turns["input_ids"][0].tolist(), CONTEXT) == [4 * TOKENS, 1 * TOKENS]
    assert torch.equal(turns["pixel_values"], torch.cat([alone[2], alone[0]]))


# --- Pixels -------------------------------------------------------------------------------------------------------

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
EXACT = 1e-5  # float32 against float64
# torchvision and PIL round a few pixels of a resized image otherwise, by one of 255 steps; in the image below, other
# ways of resampling are 17 to 161 steps off.
RESIZED = 1 / 255 / STD.min() + EXACT


def normalized(tile: Image.Image) -> np.ndarray:
    """A tile as upstream's code makes it: resized by PIL, then normalised by ImageNet's mean and deviation."""
    pixels = np.asarray(tile.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_tile_is_normalised_as_upstream_does(dynamic: bool, mode: str, processors: Callable[..., Any]):
    part = {"type": "image", "image": picture(SIDE, SIDE, mode)}
    pixels = encode(processors(dynamic_image_size=dynamic), user(part))["pixel_values"].numpy()
    assert pixels.dtype == np.float32
    assert np.abs(pixels[0] - normalized(part["image"])).max() < EXACT


def test_tiles_are_cut_by_rows_and_the_thumbnail_is_last(processors: Callable[..., Any]):
    part = image(2 * SIDE, 3 * SIDE)  # 2x3 is exact
    pixels = encode(processors(), user(part))["pixel_values"].numpy()
    assert len(pixels) == 7
    for at in range(6):
        left, top = at % 2 * SIDE, at // 2 * SIDE
        tile = part["image"].crop((left, top, left + SIDE, top + SIDE))
        assert np.abs(pixels[at] - normalized(tile)).max() < EXACT


def test_an_image_that_is_not_cut_and_a_thumbnail_are_the_whole_image_resized(processors: Callable[..., Any]):
    part = image(300, 150)
    for fields, tile in (({"dynamic_image_size": False}, 0), ({}, 8)):
        pixels = encode(processors(**fields), user(part))["pixel_values"].numpy()
        assert len(pixels) == tile + 1
        assert np.abs(pixels[tile] - normalized(part["image"])).max() < RESIZED


def test_a_videos_frames_are_one_normalised_tile_each(processors: Callable[..., Any]):
    processor = processors()
    assert type(processor.video_processor).__name__ == "InternVLVideoProcessor"
    frames = [picture(SIDE, SIDE), picture(2 * SIDE, SIDE).crop((SIDE, 0, 2 * SIDE, SIDE))]
    video = torch.stack([torch.from_numpy(np.array(frame)).permute(2, 0, 1) for frame in frames])
    prompt = processor.apply_chat_template([user({"type": "video"}, text("What?"))], tokenize=False)
    inputs = processor(text=[prompt], videos=[video], return_tensors="pt")
    pixels = inputs["pixel_values"].numpy()
    assert len(pixels) == len(frames)
    for pixel, frame in zip(pixels, frames, strict=True):
        assert np.abs(pixel - normalized(frame)).max() < EXACT
    assert runs(inputs["input_ids"][0].tolist(), CONTEXT) == [TOKENS, TOKENS]


# --- Prompts ------------------------------------------------------------------------------------------------------

TEXT_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM_TURN = {
    "Hermes-2": "<|im_start|>system\n{}<|im_end|>",
    "internlm2-chat": "<|im_start|>system\n{}<|im_end|>",
    "internvl2_5": "<|im_start|>system\n{}<|im_end|>\n",
    "internvl_zh": "{} ",
    "phi3-chat": "<|system|>\n{}<|end|>",
    "internvl3_5_gpt_oss": "<|start|>system<|message|>{}<|end|>",
}
QUESTION = "What is shown in this image?"
FIRST = {"internlm2-300m": "<s>"}
"""What the tokenizer of a checkpoint puts in front of every text; templates that are built render it."""


@dataclass(frozen=True)
class Spoken:
    """A checkpoint that is spoken to by ``template``: what makes prompts of messages there."""

    template: str
    tokenizer: Any
    processor: Any

    def prompts(self, *messages: dict[str, Any]) -> tuple[str, str]:
        return tuple(
            maker.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
            for maker in (self.tokenizer, self.processor)
        )

    def first(self, *, system: str | None = None, question: str = f"<IMG_CONTEXT>\n{QUESTION}") -> str:
        """Upstream's prompt for one turn, with another system message, or "none", and another question."""
        prompt, turn = PROMPTS[self.template]["cases"][0]["prompt"], SYSTEM_TURN[self.template]
        stated = turn.format(PROMPTS[self.template]["system_message"])
        assert prompt.startswith(stated)
        wanted = stated if system is None else "" if system == "none" else turn.format(system)
        return wanted + prompt.removeprefix(stated).replace(f"<image>\n{QUESTION}", question)


@pytest.fixture(scope="module")
def chat_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Spoken]:
    @cache
    def make(template: str, own: str | None = None, system_message: str | None = None) -> Spoken:
        change = both(configured(template=template), with_template(own))
        home = convert(tmp_path_factory.mktemp("spoken"), change=change, system_message=system_message)
        return Spoken(template, AutoTokenizer.from_pretrained(home), AutoProcessor.from_pretrained(home))

    return make


def messages_of(turns: Iterable[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    for question, answer in turns:
        images = [image()] if question.startswith("<image>\n") else []
        yield user(*images, text(question.removeprefix("<image>\n")))
        if answer is not None:
            yield {"role": "assistant", "content": [text(answer)]}


@pytest.mark.parametrize("own", [None, TEXT_ONLY], ids=["no template", "a template for text"])
@pytest.mark.parametrize("template", PROMPTS)
def test_prompts_are_upstreams(template: str, own: str | None, chat_files: Callable[..., Spoken]):
    chat = chat_files(template, own)
    assert len(PROMPTS[template]["cases"]) == 2
    for case in PROMPTS[template]["cases"]:
        prompt = case["prompt"].replace("<image>", "<IMG_CONTEXT>")
        assert chat.prompts(*messages_of(case["turns"])) == (prompt, prompt)


@pytest.mark.parametrize("template", PROMPTS)
def test_content_may_be_a_text(template: str, chat_files: Callable[..., Spoken]):
    chat = chat_files(template)
    expected = chat.first(question="Hello {{ there }}!")
    assert chat.prompts({"role": "user", "content": "Hello {{ there }}!"}) == (expected, expected)
    if MAJOR >= 5:  # version 4's processor looks for images in every content, and finds letters
        inputs = encode(chat.processor, {"role": "user", "content": "Hello {{ there }}!"})
        assert inputs["input_ids"][0].tolist() == source_ids("bpe")(expected)
        assert "pixel_values" not in inputs


@pytest.mark.parametrize("template", PROMPTS)
def test_a_system_message_replaces_the_default(template: str, chat_files: Callable[..., Spoken]):
    chat = chat_files(template)
    question = user(image(), text(QUESTION))
    expected = chat.first(system="Answer in verse.")
    for content in ("Answer in verse.", [text("Answer in verse.")]):
        assert chat.prompts({"role": "system", "content": content}, question) == (expected, expected)


TRICKY = "Be brief.\nSay \"yes\" {{ and }} %} {# \\n 'no' 你好"


@pytest.mark.parametrize("message", ["none", TRICKY, "Be brief."])
@pytest.mark.parametrize("template", PROMPTS)
def test_the_default_system_message_can_be_chosen(template: str, message: str, chat_files: Callable[..., Spoken]):
    chat = chat_files(template, None, message)
    expected = chat.first(system=message)
    assert chat.prompts(user(image(), text(QUESTION))) == (expected, expected)
    expected = chat.first(system="Another.")
    assert chat.prompts({"role": "system", "content": "Another."}, user(image(), text(QUESTION)))[0] == expected


@pytest.mark.parametrize("template", PROMPTS)
def test_images_are_placed_in_order(template: str, chat_files: Callable[..., Spoken]):
    chat = chat_files(template)
    expected = chat.first(question="<IMG_CONTEXT>\n<IMG_CONTEXT>\nWhat differs?")
    assert chat.prompts(user(image(), image(), text("What differs?"))) == (expected, expected)
    expected = chat.first(question="Between <IMG_CONTEXT>\n and <IMG_CONTEXT>\n?")
    parts = (text("Between "), image(), text(" and "), image(), text("?"))
    assert chat.prompts(user(*parts)) == (expected, expected)
    turns = [["<image>\nWhat is shown in this image?", "A cat."], ["<image>\nWhich colour?", None]]
    expected = PROMPTS[template]["cases"][1]["prompt"].replace("Which colour?", "<image>\nWhich colour?")
    expected = expected.replace("<image>", "<IMG_CONTEXT>")
    assert chat.prompts(*messages_of(turns)) == (expected, expected)


@pytest.mark.parametrize("template", PROMPTS)
def test_what_no_template_knows_raises(template: str, chat_files: Callable[..., Spoken]):
    tokenizer = chat_files(template).tokenizer
    for message in ({"role": "tool", "content": "42"}, user({"type": "audio", "audio": "a.wav"})):
        with pytest.raises(TemplateError, match="This model "):
            tokenizer.apply_chat_template([message], tokenize=False)


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m"])
def test_the_stored_tokenizers_own_templates_render_upstreams_prompts(name: str, converted: Callable[[str], Path]):
    makers = (AutoTokenizer.from_pretrained(converted(name)), AutoProcessor.from_pretrained(converted(name)))
    for case in PROMPTS["internvl2_5"]["cases"]:
        prompt = FIRST.get(name, "") + case["prompt"].replace("<image>", "<IMG_CONTEXT>")
        for maker in makers:
            messages = list(messages_of(case["turns"]))
            assert maker.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == prompt


def test_a_prompt_begins_with_one_first_token_however_it_is_tokenised(converted: Callable[[str], Path]):
    """Servers render, and tokenise without special tokens; transformers renders and tokenises in one call."""
    directory = converted("internlm2-300m")
    tokenizer, processor = AutoTokenizer.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
    messages = [{"role": "user", "content": [text(QUESTION)]}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = tokenizer(rendered, add_special_tokens=False).input_ids
    assert expected.count(tokenizer.bos_token_id) == 1
    assert expected[0] == tokenizer.bos_token_id
    chat = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    assert tokenizer.apply_chat_template(messages, **chat)["input_ids"] == expected
    assert list(processor.apply_chat_template(messages, **chat)["input_ids"][0]) == expected
    double = [list(ids) for ids in processor(text=[rendered])["input_ids"]]  # docs/serving.md tells how to avoid it
    assert double == [[tokenizer.bos_token_id, *expected]]
    assert [list(ids) for ids in processor(text=[rendered], add_special_tokens=False)["input_ids"]] == [expected]


def test_an_own_template_is_kept_where_config_json_names_none_that_is_known(chat_files: Callable[..., Spoken]):
    expected = f"<|im_start|>user\n<IMG_CONTEXT>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    stored = json.loads((DATA / "tokenizers" / "bpe" / "tokenizer_config.json").read_text())["chat_template"]
    for own in (TEXT_ONLY, stored):
        assert chat_files("my-own", own).prompts(user(image(), text(QUESTION))) == (expected, expected)


# --- Ids ----------------------------------------------------------------------------------------------------------

ADDED = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
BPE = DATA / "tokenizers" / "bpe"
INTERNLM2 = DATA / "tokenizers" / "internlm2"
Ids = Callable[[str], list[int]]

TEXTS = (
    st.lists(
        st.one_of(
            st.sampled_from(
                [*ADDED, "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<|extra_1|>"]
            ),
            st.sampled_from([" ", "  ", "\n", "\t", "\r\n", "\u2581", "\u00a0", "\u3000", "\u200d", "e\u0301"]),
            st.sampled_from(["Hello", " world", "1234", "don't", "图像", "🙂", "<img", "IMG_CONTEXT>", "<0x41>"]),
            st.text(max_size=8),
        ),
        max_size=8,
    )
    .map("".join)
    .filter(lambda text: "<video>" not in text)
)


def split_at_tokens(text: str, tokens: Iterable[str]) -> Iterator[str]:
    """``text`` cut into ``tokens`` and what is between them."""
    pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    return filter(None, re.split(f"({pattern})", text))


def sentencepiece_ids(model: bytes, added: Mapping[str, int], before: list[int], after: list[int]) -> Ids:
    """The ids that a slow tokenizer gives: the library's for every stretch between the tokens ``added``."""
    library = SentencePieceProcessor(model_proto=model)

    def ids(text: str) -> list[int]:
        parts = ([added[part]] if part in added else library.encode(part) for part in split_at_tokens(text, added))
        return [*before, *(number for part in parts for number in part), *after]

    return ids


def added_tokens(config: Path) -> dict[str, int]:
    decoder = json.loads(config.read_text())["added_tokens_decoder"]
    return {entry["content"]: int(number) for number, entry in decoder.items()}


@cache
def source_ids(kind: str) -> Ids:
    """The ids of a stored tokenizer, by the library beneath."""
    if kind == "internlm2":
        model = (INTERNLM2 / "tokenizer.model").read_bytes()
        return sentencepiece_ids(model, added_tokens(INTERNLM2 / "tokenizer_config.json"), [1], [])
    return lambda words: Tokenizer.from_file(str(BPE / "tokenizer.json")).encode(words).ids


def test_the_stored_ids_of_upstreams_internlm2_tokenizer(converted: Callable[[str], Path]):
    tokenizer = AutoTokenizer.from_pretrained(converted("internlm2-300m"))
    cases = json.loads((INTERNLM2 / "expected_tokens.json").read_text())
    assert cases
    for case in cases:
        assert tokenizer(case["text"]).input_ids == case["ids"]
        assert source_ids("internlm2")(case["text"]) == case["ids"]


def without(*names: str) -> Change:
    return lambda custom: [(custom / name).unlink() for name in names]


def tokenizer_config(**fields: Any) -> Change:
    """Change fields of tokenizer_config.json; None removes one."""

    def change(config: dict[str, Any]) -> None:
        for name, value in fields.items():
            config.pop(name, None) if value is None else config.update({name: value})

    return lambda custom: edit_json(custom / "tokenizer_config.json", change)


def with_first_token() -> Change:
    """Make tokenizer.json put <|endoftext|> in front of every text, as Llama 3's does with its own."""
    bos = "<|endoftext|>"
    plain = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    words, more = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [first, words],
        "pair": [first, words, first, more],
        "special_tokens": {bos: {"id": bos, "ids": [472], "tokens": [bos]}},
    }
    processor = {"type": "Sequence", "processors": [plain, template]}
    return both(
        lambda custom: edit_json(custom / "tokenizer.json", lambda contents: contents.update(post_processor=processor)),
        lambda custom: edit_json(custom / "tokenizer_config.json", lambda config: config.update(bos_token=bos)),
    )


def bpe_behind(number: int) -> Ids:
    return lambda words: [number, *source_ids("bpe")(words)]


GENERIC = "PreTrainedTokenizerFast"
BYTE_LEVEL: dict[str, tuple[Change, Ids]] = {
    "as stored": (lambda _: None, source_ids("bpe")),
    "only vocab.json and merges.txt": (without("tokenizer.json"), source_ids("bpe")),
    "only tokenizer.json": (
        both(without("vocab.json", "merges.txt"), tokenizer_config(tokenizer_class=GENERIC)),
        source_ids("bpe"),
    ),
    "without tokenizer_config.json": (without("tokenizer_config.json"), source_ids("bpe")),
    "only vocab.json, merges.txt and added_tokens.json": (
        without("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        source_ids("bpe"),
    ),
    "of no class": (tokenizer_config(tokenizer_class=None), source_ids("bpe")),
    "of no class, only vocab.json and merges.txt": (
        both(without("tokenizer.json"), tokenizer_config(tokenizer_class=None)),
        source_ids("bpe"),
    ),
    "of the fast class": (tokenizer_config(tokenizer_class="Qwen2TokenizerFast"), source_ids("bpe")),
    "with a first token": (
        both(with_first_token(), tokenizer_config(tokenizer_class=GENERIC)),
        bpe_behind(472),
    ),
    "with a first token, of no class": (
        both(with_first_token(), tokenizer_config(tokenizer_class=None)),
        bpe_behind(472),
    ),
    "with a first token, of Llama's class": (
        both(
            with_first_token(),
            tokenizer_config(tokenizer_class="LlamaTokenizerFast", add_bos_token=None, add_prefix_space=None),
        ),
        bpe_behind(472),
    ),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The output's tokenizer, for each kind of source; ``custom`` is its source's directory."""

    @cache
    def make(case: str) -> Any:
        name, change = (
            ("llama-6b", LLAMA[case][0])
            if case in LLAMA
            else ("qwen2-300m", BYTE_LEVEL[case][0])
            if case in BYTE_LEVEL
            else (case, None)
        )
        home = convert(tmp_path_factory.mktemp("tokenizer"), name, change)
        with in_silence():
            tokenizer = AutoTokenizer.from_pretrained(home)
        tokenizer.custom = home.parent / "custom"
        return tokenizer

    return make


@pytest.mark.parametrize("case", BYTE_LEVEL)
@given(words=TEXTS)
def test_byte_level_ids_are_the_sources(case: str, words: str, tokenizers: Callable[[str], Any]):
    tokenizer, expected = tokenizers(case), BYTE_LEVEL[case][1](words)
    assert tokenizer(words).input_ids == expected
    assert tokenizer.encode(words, add_special_tokens=False) == source_ids("bpe")(words)


@pytest.mark.parametrize("case", ["as stored", "only vocab.json and merges.txt", "with a first token"])
def test_the_expectation_is_what_transformers_gives_for_the_source(case: str, tokenizers: Callable[[str], Any]):
    source = AutoTokenizer.from_pretrained(tokenizers(case).custom, trust_remote_code=False)
    for words in ("Hello  world\n", "<|im_start|>user\n<img><IMG_CONTEXT></img> 图像 e\u0301🙂", ""):
        assert source(words).input_ids == BYTE_LEVEL[case][1](words)


@given(words=TEXTS)
def test_internlm2s_ids_are_the_sources(words: str, tokenizers: Callable[[str], Any]):
    tokenizer, expected = tokenizers("internlm2-300m"), source_ids("internlm2")(words)
    assert tokenizer(words).input_ids == expected
    assert tokenizer.encode(words, add_special_tokens=False) == expected[1:]


# Llama's own tokenizer: SentencePiece with a dummy prefix.


@cache
def llama_model() -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["Hello world, what is shown in this image? A cat.", "图像 模型 12 34", "a  b\tc"] * 9),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        add_dummy_prefix=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=4,
    )
    return model.getvalue()


@cache
def llama_added() -> dict[str, int]:
    size = SentencePieceProcessor(model_proto=llama_model()).get_piece_size()
    tokens = ["<|im_start|>", "<|im_end|>", *ADDED]
    return {"<unk>": 0, "<s>": 1, "</s>": 2, **{token: size + at for at, token in enumerate(tokens)}}


def llama(**fields: Any) -> Change:
    """Make the tokenizer Llama's, in a tokenizer.model."""

    def change(custom: Path) -> None:
        for path in BPE.iterdir():
            if path.name not in {"generation_config.json", "preprocessor_config.json"}:
                (custom / path.name).unlink()
        (custom / "tokenizer.model").write_bytes(llama_model())
        flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        config = {
            "added_tokens_decoder": {str(n): {"content": token, **flags} for token, n in llama_added().items()},
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>", *ADDED],
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "</s>",
            "tokenizer_class": "LlamaTokenizer",
            "clean_up_tokenization_spaces": False,
            **fields,
        }
        (custom / "tokenizer_config.json").write_text(json.dumps(config))

    return change


@cache
def llama_json() -> dict[str, Any]:
    """A Llama tokenizer.json; its ids are checked in the tests below, whoever made it."""
    with tempfile.TemporaryDirectory() as directory:
        home = convert(Path(directory), "llama-6b", llama(legacy=True))
        return json.loads((home / "tokenizer.json").read_text())


def with_json(*, bos: bool, model: bool = True) -> Change:
    """Add a tokenizer.json whose post_processor puts <s> in front of a text, or does not."""
    first, words, more = (
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        *({"Sequence": {"id": name, "type_id": 0}} for name in "AB"),
    )
    processor = {
        "type": "TemplateProcessing",
        "single": [first, words],
        "pair": [first, words, first, more],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }

    def change(custom: Path) -> None:
        contents = {**llama_json(), "post_processor": processor if bos else None}
        (custom / "tokenizer.json").write_text(json.dumps(contents, ensure_ascii=False))
        if not model:
            (custom / "tokenizer.model").unlink()

    return change


def llama_ids(before: list[int], after: list[int]) -> Ids:
    return sentencepiece_ids(llama_model(), llama_added(), before, after)


def llama_modern_ids(words: str) -> list[int]:
    """``legacy`` false: the dummy prefix is for the start of a text only, and not in front of a token or a space.

    So has it the fast class, which AutoTokenizer prefers; the slow one puts another in front of a space.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(llama_model())
    proto.normalizer_spec.add_dummy_prefix = False
    ids = sentencepiece_ids(proto.SerializeToString(), llama_added(), [1], [])
    starts = next(split_at_tokens(words, llama_added()), "")
    return ids(words if not starts or starts in llama_added() or starts[0] in " \u2581" else f" {words}")


LLAMA: dict[str, tuple[Change, Ids]] = {
    "legacy": (llama(legacy=True), llama_ids([1], [])),
    "legacy unsaid": (llama(), llama_ids([1], [])),
    "legacy, of the fast class": (llama(legacy=True, tokenizer_class="LlamaTokenizerFast"), llama_ids([1], [])),
    "legacy, no first token": (llama(legacy=True, add_bos_token=False), llama_ids([], [])),
    "legacy, a last token": (llama(legacy=True, add_eos_token=True), llama_ids([1], [2])),
    "not legacy": (llama(legacy=False), llama_modern_ids),
    "not legacy, first token stated": (llama(legacy=False, add_bos_token=True), llama_modern_ids),
    "json with <s>, config without": (
        both(llama(legacy=True, add_bos_token=False), with_json(bos=True)),
        llama_ids([], []),
    ),
    "json with <s>, config without, no model": (
        both(llama(legacy=True, add_bos_token=False), with_json(bos=True, model=False)),
        llama_ids([], []),
    ),
    "json without <s>, config with": (
        both(llama(legacy=True, add_bos_token=True), with_json(bos=False)),
        llama_ids([1], []),
    ),
    "json without <s>, config silent": (both(llama(legacy=True), with_json(bos=False)), llama_ids([1], [])),
    "json with <s>, config with </s>": (
        both(llama(legacy=True, add_eos_token=True), with_json(bos=True)),
        llama_ids([1], [2]),
    ),
    "json with <s>, config agrees": (both(llama(legacy=True), with_json(bos=True)), llama_ids([1], [])),
}
LLAMA_TEXTS = ["", "Hello world", " Hello", "<|im_start|>user\nHello<|im_end|>\n<img><IMG_CONTEXT></img>a  b 图像🙂"]


@pytest.mark.parametrize("case", LLAMA)
@given(words=TEXTS)
def test_llamas_ids_are_the_sources(case: str, words: str, tokenizers: Callable[[str], Any]):
    assert tokenizers(case)(words).input_ids == LLAMA[case][1](words)


@pytest.mark.skipif(MAJOR != 4, reason="what version 4's class gave is expected; 5's class gives other ids")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the classes of sentencepiece's protobuf, and SWIG's
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("case", LLAMA)
def test_the_expectation_is_what_transformers_4_gives_for_llamas_source(
    case: str, fast: bool, tokenizers: Callable[[str], Any]
):
    custom = tokenizers(case).custom
    if not fast and not (custom / "tokenizer.model").exists():
        pytest.skip("the slow class reads tokenizer.model only")
    source = AutoTokenizer.from_pretrained(custom, trust_remote_code=False, use_fast=fast)
    for words in LLAMA_TEXTS:
        if case.startswith("not legacy") and not fast and words.startswith(" "):
            continue  # the two classes disagree here
        assert source(words).input_ids == LLAMA[case][1](words)


NAMELESS: dict[str, tuple[str, Change, Ids]] = {
    "InternLM2 without tokenizer_config.json": (
        "internlm2-300m",
        without("tokenizer_config.json"),
        source_ids("internlm2"),
    ),
    "InternLM2 of no class": ("internlm2-300m", tokenizer_config(tokenizer_class=None), source_ids("internlm2")),
    "InternLM2 of no class and without remote code": (
        "internlm2-300m",
        tokenizer_config(tokenizer_class=None, auto_map=None),
        source_ids("internlm2"),
    ),
    "Llama of no class": (
        "llama-6b",
        both(llama(legacy=True), tokenizer_config(tokenizer_class=None)),
        llama_ids([1], []),
    ),
}


@pytest.mark.parametrize("case", NAMELESS)
def test_a_sentencepiece_tokenizer_of_no_class_is_refused_or_understood(case: str, tmp_path: Path):
    name, change, expected = NAMELESS[case]
    try:
        home = convert(tmp_path, name, change)
    except internvl_bridge.BridgeError:
        return
    tokenizer = AutoTokenizer.from_pretrained(home)
    for words in LLAMA_TEXTS:
        assert tokenizer(words).input_ids == expected(words)


# What a tokenizer knows beside ids of text.

KINDS = ["qwen2-300m", "internlm2-300m", "only vocab.json and merges.txt", "without tokenizer_config.json"]


@pytest.mark.parametrize("case", KINDS)
def test_the_only_new_token_is_video(case: str, tokenizers: Callable[[str], Any]):
    tokenizer = tokenizers(case)
    assert len(tokenizer) == VOCABULARY + 1
    if case == "internlm2-300m":
        library = SentencePieceProcessor(model_proto=(INTERNLM2 / "tokenizer.model").read_bytes())
        names = {number: library.id_to_piece(number) for number in range(library.get_piece_size())}
        names |= {number: token for token, number in added_tokens(INTERNLM2 / "tokenizer_config.json").items()}
        vocabulary = {token: number for number, token in names.items()}
    else:
        vocabulary = Tokenizer.from_file(str(BPE / "tokenizer.json")).get_vocab()
    assert len(vocabulary) == VOCABULARY
    assert tokenizer.get_vocab() == {**vocabulary, "<video>": VIDEO}


@pytest.mark.parametrize("case", [*KINDS, "of no class", "with a first token", "legacy"])
def test_the_tokenizer_knows_the_processors_tokens(case: str, tokenizers: Callable[[str], Any]):
    tokenizer = tokenizers(case)
    first = llama_added()["<img>"] if case in LLAMA else IMAGE_START
    expected = {"start_image": ("<img>", first), "end_image": ("</img>", first + 1)}
    expected |= {"context_image": ("<IMG_CONTEXT>", first + 2), "video": ("<video>", first + 9)}
    for name, (token, number) in expected.items():
        assert getattr(tokenizer, f"{name}_token") == token
        assert getattr(tokenizer, f"{name}_token_id") == number
        assert tokenizer(f"x{token}y", add_special_tokens=False).input_ids.count(number) == 1


ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@pytest.mark.parametrize("case", ["qwen2-300m", "internlm2-300m", "only vocab.json and merges.txt", "of no class"])
def test_special_tokens_keep_their_roles(case: str, tokenizers: Callable[[str], Any]):
    tokenizer = tokenizers(case)
    stored = json.loads(((INTERNLM2 if case.startswith("intern") else BPE) / "tokenizer_config.json").read_text())
    assert {role: getattr(tokenizer, role) for role in ROLES} == {role: stored[role] for role in ROLES}
    ids = {entry["content"]: int(number) for number, entry in stored["added_tokens_decoder"].items()}
    assert ids.items() <= tokenizer.get_vocab().items()
    specials = {stored[role] for role in ROLES if stored[role]} | {*stored["additional_special_tokens"]}
    assert specials <= set(tokenizer.all_special_tokens)
    assert tokenizer.model_max_length == stored["model_max_length"]
    words = "".join(["a", *ids, "b"])
    assert tokenizer.decode(tokenizer(words).input_ids, skip_special_tokens=True) == "ab"
    plain = tokenizer("one , two . don 't", add_special_tokens=False).input_ids
    assert tokenizer.decode(plain) == "one , two . don 't"


@pytest.mark.parametrize("case", ["without tokenizer_config.json", "legacy", "json without <s>, config with"])
def test_roles_of_special_tokens_come_from_where_the_source_has_them(case: str, tokenizers: Callable[[str], Any]):
    expected = ("<s>", "</s>", "<unk>", "</s>") if case in LLAMA else (None, "<|im_end|>", None, "<|endoftext|>")
    assert tuple(getattr(tokenizers(case), role) for role in ROLES) == expected


# What the classes say of themselves in transformers 4, and InternLM2's in upstream's code: bos, eos, unk and pad.
UNSAID: dict[str, tuple[str, Change, tuple[str | None, ...]]] = {
    "Qwen2": ("qwen2-300m", without("special_tokens_map.json"), (None, *["<|endoftext|>"] * 3)),
    "InternLM2": ("internlm2-300m", without("special_tokens_map.json"), ("<s>", "</s>", "<unk>", "</s>")),
    "Llama": ("llama-6b", llama(legacy=True), ("<s>", "</s>", "<unk>", None)),
}


@pytest.mark.parametrize("case", UNSAID)
def test_roles_that_a_source_does_not_state_are_its_classs(case: str, tmp_path: Path):
    name, change, expected = UNSAID[case]
    tokenizer = AutoTokenizer.from_pretrained(
        convert(tmp_path, name, both(change, tokenizer_config(**dict.fromkeys(ROLES))))
    )
    assert tuple(getattr(tokenizer, role) for role in ROLES) == expected


# --- Generation ---------------------------------------------------------------------------------------------------


class Script(LogitsProcessor):
    """Makes a model say these tokens, one after the other."""

    def __init__(self, *tokens: int):
        self.tokens = iter(tokens)

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -math.inf)
        forced[:, next(self.tokens)] = 0
        return forced


def ids_of(stated: int | list[int] | None) -> list[int]:
    return stated if isinstance(stated, list) else [] if stated is None else [stated]


def write_generation(values: dict[str, Any] | None) -> Change:
    def change(custom: Path) -> None:
        path = custom / "generation_config.json"
        path.unlink() if values is None else path.write_text(json.dumps(values))

    return change


def hot(custom: Path) -> None:
    """A parameter of generation in config.json makes transformers 4 remake a generation config that came from there."""
    edit_json(custom / "config.json", lambda config: config.update(temperature=0.7))
    edit_json(custom / "config.json", lambda config: config["llm_config"].update(temperature=0.7))


GENERATION: dict[str, Change] = {
    "as stored": lambda _: None,
    "absent": write_generation(None),
    "empty": write_generation({}),
    "without eos": write_generation({"transformers_version": "4.37.2", "do_sample": True, "top_p": 0.5}),
    "of another eos": write_generation({"eos_token_id": 2}),
    "of other eos": write_generation({"eos_token_id": [2, 7], "pad_token_id": 3}),
    "from config.json": both(hot, write_generation({"_from_model_config": True, "eos_token_id": 474})),
    "from config.json, of another eos": both(hot, write_generation({"_from_model_config": True, "eos_token_id": 2})),
}


def check_that_turns_end(home: Path, end: int) -> GenerationConfig:
    """A real generation stops after the token ``end``, and every config knows it."""
    processor = AutoProcessor.from_pretrained(home)
    model = AutoModelForImageTextToText.from_pretrained(home, dtype=torch.float32)
    assert end in ids_of(model.generation_config.eos_token_id)
    assert end in ids_of(model.config.text_config.eos_token_id)
    inputs = encode(processor, user(image(), text("What?")))
    said = model.generate(
        **inputs, logits_processor=LogitsProcessorList([Script(5, 6, end, 8, 9)]), max_new_tokens=5, do_sample=False
    )
    assert said[0, inputs["input_ids"].shape[1] :].tolist() == [5, 6, end]
    return model.generation_config


@pytest.mark.parametrize("case", GENERATION)
@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m"])
def test_generation_stops_where_a_turn_ends(name: str, case: str, tmp_path: Path):
    home = convert(tmp_path, name, GENERATION[case])
    if case.startswith("from"):
        edit_json(home / "config.json", lambda config: config.update(temperature=0.7))
    generation = check_that_turns_end(home, IM_END[tokenizer_kind(name)])
    source = home.parent / "custom" / "generation_config.json"
    stated = json.loads(source.read_text()) if source.exists() else {}
    assert set(ids_of(stated.get("eos_token_id"))) <= set(ids_of(generation.eos_token_id))
    for field in stated.keys() & {"top_p", "pad_token_id"}:
        assert getattr(generation, field) == stated[field]


TURN_END = {
    "Hermes-2": "<|im_end|>",
    "internlm2-chat": "<|im_end|>",
    "internvl2_5": "<|im_end|>",
    "internvl_zh": "</s>",
    "phi3-chat": "<|end|>",
    "internvl3_5_gpt_oss": "<|return|>",
}


UNLIKE = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['content'] is not string %}{% for part in m['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "own", [None, TEXT_ONLY, UNLIKE], ids=["no template", "a template for text", "a template of nobody else"]
)
@pytest.mark.parametrize("template", PROMPTS)
def test_each_template_ends_a_turn_by_its_own_token(template: str, own: str | None, tmp_path: Path):
    def rename(custom: Path) -> None:
        for path in (custom / name for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")):
            path.write_text(path.read_text().replace("<|extra_0|>", TURN_END[template]))

    end = 474 if TURN_END[template] == "<|im_end|>" else 475
    changes = [configured(template=template), with_template(own), write_generation({"eos_token_id": 2})]
    changes += [rename] if end == 475 else []
    check_that_turns_end(convert(tmp_path, change=both(*changes)), end)


# --- Configs of both versions -------------------------------------------------------------------------------------

ONLY_4 = ("rope_theta", "rope_scaling", "torch_dtype")
ONLY_5 = ("rope_parameters", "dtype")
FULL = {"qwen3moe-6b": ("num_experts", "num_local_experts")}


@dataclass(frozen=True)
class Facts:
    """What a config says of a language model, in whatever words."""

    rope_base: float
    scaling: Any
    experts: int | None
    layer_types: Any
    eos: Any


def facts_of(config: Any) -> Facts:
    """Read the config object of a language model as the model code of this version does."""
    if MAJOR >= 5:
        scaling = dict(config.rope_parameters)
        base = scaling.pop("rope_theta")
    else:
        scaling, base = dict(config.rope_scaling or {}), config.rope_theta
    kind = scaling.pop("rope_type", None) or scaling.get("type", "default")
    scaling.pop("type", None)
    scaling.pop("partial_rotary_factor", None)  # version 5 states Phi-3's here, version 4 beside
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    return Facts(
        base,
        None if kind == "default" else {"rope_type": kind, **scaling},
        experts,
        getattr(config, "layer_types", None),
        config.eos_token_id,
    )


def expected_facts(name: str) -> Facts:
    """The same, from the custom config.json."""
    llm = json.loads((DATA / "custom" / name / "config.json").read_text())["llm_config"]
    scaling = dict(llm["rope_scaling"] or {})
    if "type" in scaling:
        scaling["rope_type"] = scaling.pop("type")
    return Facts(
        llm["rope_theta"],
        scaling or None,
        llm.get("num_experts") or llm.get("num_local_experts"),
        llm.get("layer_types"),
        IM_END[tokenizer_kind(name)],
    )


@pytest.mark.parametrize("words", ["both", "4's", "5's"])
@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_the_same_in_the_words_of_each_version(
    name: str, words: str, converted: Callable[[str], Path], tmp_path: Path
):
    if words == "5's" and MAJOR < 5:
        pytest.skip("version 4 does not know them: it takes defaults in silence")
    old, new = FULL.get(name, ("", ""))
    away = {"both": (), "4's": (*ONLY_5, new), "5's": (*ONLY_4, old)}[words]
    values = json.loads((converted(name) / "config.json").read_text())
    for part in (values, values["text_config"], values["vision_config"]):
        for field in away:
            part.pop(field, None)
    assert words == "both" or set(away) & {*values, *json.loads((converted(name) / "config.json").read_text())}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with in_silence():
        config = AutoConfig.from_pretrained(tmp_path)
    made, expected = facts_of(config.text_config), expected_facts(name)
    if expected.layer_types is None:
        assert not made.layer_types or set(made.layer_types) == {"full_attention"}
        made = Facts(made.rope_base, made.scaling, made.experts, None, made.eos)
    if name.startswith("gptoss"):  # both versions add fields of YaRN that do not change anything
        assert made.scaling.items() >= expected.scaling.items()
        made = Facts(made.rope_base, expected.scaling, made.experts, made.layer_types, made.eos)
    assert made == expected
    tied = name.endswith("-tied")
    assert config.tie_word_embeddings is config.text_config.tie_word_embeddings is tied
    assert config.dtype is torch.bfloat16


# --- The way back -------------------------------------------------------------------------------------------------

ONLY_HF_FILES = {"processor_config.json", "video_preprocessor_config.json", "chat_template.jinja"}
TILING = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "max_dynamic_patch": 12}


@dataclass(frozen=True)
class WayBack:
    """A custom directory made of what transformers saved, without sidecar."""

    custom: Path
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]


def back(saved: Path, custom: Path) -> WayBack:
    assert not (saved / "internvl_bridge.json").exists()
    internvl_bridge.to_custom(saved, custom)
    config, tokenizer = (json.loads((custom / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    return WayBack(custom, config, tokenizer)


def save_again(home: Path, saved: Path) -> Path:
    AutoModelForImageTextToText.from_pretrained(home, dtype="auto").save_pretrained(saved)
    AutoProcessor.from_pretrained(home).save_pretrained(saved)
    return saved


STORED = [path.name for path in sorted((DATA / "resaved").iterdir())]


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory, converted: Callable[[str], Path]) -> Callable[[str], WayBack]:
    """The way back of a stored checkpoint, or of what other versions of transformers saved."""

    @cache
    def make(name: str) -> WayBack:
        directory = tmp_path_factory.mktemp("returned")
        if name not in STORED:
            return back(save_again(converted(name), directory / "saved"), directory / "custom")
        saved = shutil.copytree(DATA / "resaved" / name, directory / "saved")
        for kind in ("processor", "tokenizer"):
            shutil.copytree(DATA / f"{kind}-{name.partition('@')[2]}", saved, dirs_exist_ok=True)
        shutil.copy(converted("qwen2-300m") / "model.safetensors", saved)
        return back(saved, directory / "custom")

    return make


@pytest.mark.parametrize("name", [*NAMES, *STORED])
def test_the_way_back_knows_what_upstreams_code_needs(name: str, returned: Callable[[str], WayBack]):
    made, stored = returned(name), json.loads((DATA / "custom" / name.partition("@")[0] / "config.json").read_text())
    files = {path.name for path in made.custom.iterdir()}
    assert not files & ONLY_HF_FILES
    assert {"config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json"} <= files
    assert "_from_model_config" not in json.loads((made.custom / "generation_config.json").read_text()) or "@" in name

    llm = made.config["llm_config"]
    assert made.config["architectures"] == ["InternVLChatModel"]
    architecture = stored["llm_config"]["architectures"][0].replace("InternLM2", "Llama")  # alike without a sidecar
    assert llm["architectures"] == [architecture]
    assert made.config["template"] == "internvl2_5"
    assert {field: made.config[field] for field in TILING} == TILING
    assert made.config["force_image_size"] == SIDE
    assert made.config["ps_version"] == "v2"
    for reference in made.config["auto_map"].values():
        assert re.fullmatch(r"OpenGVLab/InternVL[\w.-]+--(configuration|modeling)_internvl_chat\.\w+", reference)
    assert {*made.config["auto_map"]} == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}

    preprocessor = json.loads((made.custom / "preprocessor_config.json").read_text())
    assert (preprocessor["image_mean"], preprocessor["image_std"]) == (MEAN.tolist(), STD.tolist())
    assert preprocessor["crop_size"] == preprocessor["size"] == SIDE

    template = made.tokenizer_config["chat_template"]
    assert "<image>" in template
    assert "IMG_CONTEXT" not in template
    for name_ in ("start_image_token", "end_image_token", "context_image_token", "video_token"):
        assert name_ not in json.dumps(made.tokenizer_config)
    assert "processor_class" not in made.tokenizer_config


@pytest.mark.parametrize("name", [*NAMES, *STORED])
def test_the_way_back_describes_the_same_language_model(name: str, returned: Callable[[str], WayBack]):
    llm, source = dict(returned(name).config["llm_config"]), name.partition("@")[0]
    stored = json.loads((DATA / "custom" / source / "config.json").read_text())["llm_config"]
    assert llm["rope_theta"] == stored["rope_theta"]
    for field in ("num_experts", "num_local_experts"):
        if stored.get(field) is not None:
            assert llm[field] == stored[field]
    made, expected = facts_of(CONFIG_MAPPING[llm.pop("model_type")](**llm)), expected_facts(source)
    if source == "gptoss-300m":
        assert made.scaling.items() >= expected.scaling.items()
    else:
        assert made.scaling == expected.scaling
    assert (made.rope_base, made.experts) == (expected.rope_base, expected.experts)
    assert name in STORED or expected.eos in ids_of(made.eos)  # those were not made by a conversion, and have 2
    assert llm["tie_word_embeddings"] is stored["tie_word_embeddings"]


@pytest.mark.parametrize("fast", [pytest.param(True, id="fast"), pytest.param(False, id="slow")])
@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", "llama-6b", *STORED])
def test_the_way_back_has_the_same_tokenizer(name: str, fast: bool, returned: Callable[[str], WayBack]):
    if not fast and MAJOR != 4:
        pytest.skip("version 5 has one kind of tokenizers only")
    made, kind = returned(name), tokenizer_kind(name)
    tokenizer = AutoTokenizer.from_pretrained(made.custom, use_fast=fast, trust_remote_code=False)
    stored = json.loads((DATA / "tokenizers" / kind / "tokenizer_config.json").read_text())
    assert {role: getattr(tokenizer, role) for role in ROLES} == {role: stored[role] for role in ROLES}
    for token, number in added_tokens(DATA / "tokenizers" / kind / "tokenizer_config.json").items():
        assert tokenizer.convert_tokens_to_ids(token) == number
        assert token in tokenizer.all_special_tokens or "extra" in token
    assert len(tokenizer) in {VOCABULARY, VOCABULARY + 1}  # HF's <video> may stay

    @given(words=TEXTS)
    def ids_are_the_same(words: str) -> None:
        assert tokenizer(words).input_ids == source_ids(kind)(words)

    ids_are_the_same()
    prompt = tokenizer.apply_chat_template(
        [user({"type": "image"}, text(QUESTION))], tokenize=False, add_generation_prompt=True
    )
    first = FIRST.get(name, "")
    assert prompt == f"{first}<|im_start|>user\n<image>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", PROMPTS)
def test_the_way_back_names_the_template_and_the_tiling(template: str, tmp_path: Path):
    change = both(configured(template=template, dynamic_image_size=False, use_thumbnail=False), with_template(None))
    made = back(save_again(convert(tmp_path, change=change), tmp_path / "saved"), tmp_path / "back")
    # upstream's two names for one conversation
    assert made.config["template"] == {"internlm2-chat": "Hermes-2"}.get(template, template)
    assert {field: made.config[field] for field in TILING} == {
        "dynamic_image_size": False,
        "use_thumbnail": False,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
    }


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", *STORED])
def test_there_and_back_and_there_again_is_the_same_to_transformers(
    name: str, converted: Callable[[str], Path], returned: Callable[[str], WayBack], tmp_path: Path
):
    without_sidecar = shutil.ignore_patterns("internvl_bridge.json")
    shutil.copytree(returned(name).custom, tmp_path / "custom", ignore=without_sidecar)
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "again")
    first, second = (
        encode(AutoProcessor.from_pretrained(home), user(image(2 * SIDE, SIDE), text("What is 图像?"), image()))
        for home in (converted(name.partition("@")[0]), tmp_path / "again")
    )
    assert {field: value.tolist() for field, value in first.items()} == {
        field: value.tolist() for field, value in second.items()
    }
    check_that_turns_end(tmp_path / "again", IM_END[tokenizer_kind(name)])
