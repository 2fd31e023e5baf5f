"""The tokenizer.json made of a SentencePiece model gives the ids that sentencepiece gives, or is refused."""

import io
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2
from support import DATA
from tokenizers import Tokenizer

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.tokenizer.from_sentencepiece import FastTokenizer, fast_tokenizer
from internvl_bridge.metadata.tokenizer.sentencepiece_model import read_sentencepiece_model

STORED = DATA / "tokenizers" / "internlm2"
CONFIG = json.loads((STORED / "tokenizer_config.json").read_text())["added_tokens_decoder"]
ORIGIN = Path("somewhere/tokenizer_config.json")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

Entry = tuple[str, float, int]
META: list[Entry] = [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("</s>", 0, CONTROL)]
BYTES: list[Entry] = [(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256)]


def model_of(entries: Iterable[Entry], **settings_: Any) -> Any:
    """A model as sentencepiece stores it: BPE, no dummy prefix, nothing removed, unless ``settings_`` say otherwise."""
    proto = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in entries:
        proto.pieces.add(piece=text, score=score, type=kind)
    proto.trainer_spec.model_type = settings_.get("model_type", 2)
    proto.trainer_spec.byte_fallback = any(kind == BYTE for _, _, kind in entries)
    proto.trainer_spec.treat_whitespace_as_suffix = settings_.get("suffix", False)
    proto.normalizer_spec.add_dummy_prefix = settings_.get("prefix", False)
    proto.normalizer_spec.remove_extra_whitespaces = settings_.get("remove", False)
    proto.normalizer_spec.escape_whitespaces = settings_.get("escape", True)
    proto.normalizer_spec.precompiled_charsmap = settings_.get("charsmap", b"")
    proto.denormalizer_spec.precompiled_charsmap = settings_.get("output_charsmap", b"")
    return proto


def convert(raw: bytes, added: Mapping[str, Any] | None = None, **options: Any) -> FastTokenizer:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tokenizer.model"
        path.write_bytes(raw)
        return fast_tokenizer(
            read_sentencepiece_model(path), added or {}, **{"bos": None, "eos": None, "origin": ORIGIN} | options
        )


def loaded(made: FastTokenizer) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(made.contents))


def both(proto: Any) -> tuple[SentencePieceProcessor, Tokenizer]:
    """Sentencepiece itself and its equal, without added tokens."""
    raw = proto.SerializeToString()
    library = SentencePieceProcessor()
    library.LoadFromSerializedProto(raw)
    return library, loaded(convert(raw))


def token(content: str, *, special: bool = True, **flags: Any) -> dict[str, Any]:
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {"content": content, "special": special, **usual, **flags}


SENTENCES = [
    "the better image is in the simple than the explicit, and better is the simplest: nested worse than flat",
    "def forward(self, x):\n\treturn x  # 1234 + 3.14159 == 1237.14159 -- ---- -------- ================",
    "aaaa aaaaaaaa ababababab abcabcabc        eight    four  two   \t\t\t tabs \n\n\n lines",
    "图像 模型 转换 描述这张图片 图片图片 图像图像",
    "ยินดีต้อนรับ สวัสดีชาวโลก สวัสดี",
    "नमस्ते दुनिया हिन्दी e\u0301e\u0301 n\u0303 한국어 한글 שלום عالم 🙂🙂 👩‍👩‍👧 👍🏽",
] * 3


def train(**options: Any) -> Any:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        minloglevel=4,
        **{
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "add_dummy_prefix": False,
            "hard_vocab_limit": False,
            "vocab_size": 500,
        }
        | options,
    )
    return sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())


def stored() -> Any:
    return sentencepiece_model_pb2.ModelProto.FromString((STORED / "tokenizer.model").read_bytes())


MODELS: dict[str, Callable[[], Any]] = {
    "stored": stored,
    "bytes": lambda: train(byte_fallback=True, vocab_size=700, split_digits=True),
    "few characters": lambda: train(byte_fallback=True, vocab_size=420, character_coverage=0.98),
    "unknown": lambda: train(character_coverage=0.98),
    "prefix": lambda: train(byte_fallback=True, add_dummy_prefix=True, vocab_size=650),
    "unknown with prefix": lambda: train(add_dummy_prefix=True, character_coverage=0.98, vocab_size=300),
    "long pieces": lambda: train(
        byte_fallback=True,
        vocab_size=900,
        split_by_whitespace=False,
        split_by_unicode_script=False,
        split_by_number=False,
        allow_whitespace_only_pieces=True,
        max_sentencepiece_length=40,
    ),
    "symbols": lambda: train(
        byte_fallback=True,
        vocab_size=640,
        control_symbols=["<mask>"],
        user_defined_symbols=["<tag>", "ab", "abc", "the b", SPACE * 3, "🙂", "\n\n", "<0x41", "bca"],
    ),
}


@cache
def prepared(name: str) -> tuple[SentencePieceProcessor, Tokenizer]:
    return both(MODELS[name]())


FRAGMENTS = [
    *[
        "",
        " ",
        "  ",
        "   ",
        " " * 8,
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\0",
        "\u00a0",
        "\u3000",
        "\u200b",
        "\ufeff",
        "\ufffd",
    ],
    *[SPACE, SPACE * 3, "<0x41>", "<0x0A>", "<0x", "<unk", "<mask>", "[UNUSED_TOKEN_3]", "[UNUSED_TOKEN_", "<tag>"],
    *["ab", "abc", "bcabca", "abab", "the", " the b", "better", "simple", "image", "1234", "3.14", "----", "======="],
    *[
        "图像",
        "模型",
        "图",
        "สวัสดี",
        "नमस्ते",
        "한국어",
        "e\u0301",
        "\u0301",
        "🙂",
        "👩‍👩‍👧",
        "🇩🇪",
        "\U0010ffff",
        "é",
        "\x7f",
        "\u0085",
    ],
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=12).map("".join)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=250)
@given(text=TEXTS)
@example(text="")
@example(text=SPACE)
@example(text=" a ")
def test_ids_and_decoded_text_are_sentencepieces(name: str, text: str) -> None:
    library, ours = prepared(name)
    ids = library.encode(text)

    assert ours.encode(text).ids == ids
    if library.unk_id() not in ids:
        assert ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("name", MODELS)
def test_long_runs_and_periods_are_cut_alike(name: str) -> None:
    library, ours = prepared(name)
    units = [
        "a",
        "ab",
        "abc",
        "aab",
        " ",
        "  a",
        "-",
        "=",
        "图",
        "图像",
        "🙂",
        "é",
        "\n",
        "\t ",
        "is ",
        " is",
        "1",
        "the better ",
    ]
    texts = [before + unit * times for unit in units for times in range(1, 70) for before in ("", "b", " ")]

    assert [encoding.ids for encoding in ours.encode_batch(texts)] == library.encode(texts)


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_json_survives_a_round_trip(name: str) -> None:
    library, ours = prepared(name)
    again = Tokenizer.from_str(ours.to_str())

    for text in [*SENTENCES[:6], *FRAGMENTS]:
        assert again.encode(text).ids == library.encode(text)
    assert again.to_str() == ours.to_str()


def test_every_id_is_called_as_sentencepiece_calls_it() -> None:
    for name in MODELS:
        library, ours = prepared(name)
        numbers = range(library.vocab_size())
        assert [ours.id_to_token(number) for number in numbers] == library.id_to_piece(list(numbers))
        assert ours.get_vocab_size() == library.vocab_size()


# Vocabularies no trainer would make


WORDS = ["".join(letters) for length in range(2, 6) for letters in product("ab", repeat=length)]


def vocabulary(words: Iterable[str], scores: Iterable[float]) -> Any:
    return model_of(
        [*META, ("a", 0, NORMAL), ("b", 0, NORMAL), *((w, s, NORMAL) for w, s in zip(words, scores, strict=True))]
    )


@settings(max_examples=400)
@given(st.data())
def test_any_vocabulary_with_different_scores_is_cut_alike(data: st.DataObject) -> None:
    """Overlaps, borders and cascades of all sorts: two letters, and scores without any relation to lengths."""
    words = data.draw(st.lists(st.sampled_from(WORDS), unique=True, max_size=24))
    library, ours = both(vocabulary(words, data.draw(st.permutations(range(len(words))))))
    texts = [text * 3 for text in data.draw(st.lists(st.text("ab", min_size=1, max_size=16), min_size=20, max_size=40))]

    assert [encoding.ids for encoding in ours.encode_batch(texts)] == library.encode(texts)


def test_equal_scores_are_cut_alike_or_refused() -> None:
    chance = random.Random(0)  # noqa: S311
    refused, accepted = 0, 0
    while accepted < 300:
        words = chance.sample(WORDS[:12], chance.randint(3, 9))
        scores = [-chance.randint(0, 4) for _ in words]
        try:
            library, ours = both(vocabulary(words, scores))
        except CompanionFileError as error:
            assert re.search("other pieces have the same score as '[ab]+', -?[0-4].0.$", error.reason)  # noqa: PT017
            refused += 1
            continue
        accepted += len(set(scores)) < len(scores)
        texts = ["".join(chance.choices("ab", k=chance.randint(1, 30))) for _ in range(60)]
        assert [encoding.ids for encoding in ours.encode_batch(texts)] == library.encode(texts)
    assert refused > 100


@pytest.mark.parametrize(
    ("words", "scores"),
    [
        (["ab", "ba"], [-1, -1]),  # aba: which of both takes the b
        (["aa", "bb", "aabb"], [-1, -1, -1]),
        (["aa", "bb", "aab"], [-1, -1, 0]),  # aabb: aab, before there is a bb
    ],
)
def test_pieces_of_equal_score_that_compete_are_refused(words: list[str], scores: list[float]) -> None:
    with pytest.raises(CompanionFileError, match=r"other pieces have the same score as '..', -1\.0") as caught:
        convert(vocabulary(words, scores).SerializeToString())
    assert caught.value.remedy == "Give a directory with a fast tokenizer (tokenizer.json) by --tokenizer."


def test_pieces_of_equal_score_that_cannot_compete_are_taken() -> None:
    library, ours = both(vocabulary(["aa", "bb", "aabb"], [-1, -1, -2]))

    for letters in product("ab", repeat=9):
        text = "".join(letters)
        assert ours.encode(text).ids == library.encode(text)


def test_pieces_that_nothing_leads_to_stay_unused() -> None:
    library, ours = both(vocabulary(["abab", "bbb"], [-1, -2]))  # no ab, ba, bb

    assert ours.encode("ababbb").ids == library.encode("ababbb") == [3, 4, 3, 4, 4, 4]


def test_unused_pieces_that_nothing_leads_to_are_taken() -> None:
    entries = [*META, ("a", 0, NORMAL), ("b", 0, NORMAL), ("aba", -1, UNUSED)]
    library, ours = both(model_of(entries))

    assert ours.encode("aba").ids == library.encode("aba") == [3, 4, 3]


def test_pieces_with_a_space_are_never_made() -> None:
    entries = [
        *META,
        ("a", 0, NORMAL),
        (" ", 0, NORMAL),
        ("a ", -1, NORMAL),
        (SPACE, 0, NORMAL),
        ("a a", 0, USER_DEFINED),
    ]
    library, ours = both(model_of(entries))

    assert ours.encode("a a ").ids == library.encode("a a ") == [3, 6, 3, 6]


@given(st.text("ab🙂 c", max_size=20))
def test_a_user_defined_piece_is_joined_to_nothing(text: str) -> None:
    entries = [
        *META,
        *((c, 0, NORMAL) for c in "abc"),
        ("ab", -1, NORMAL),
        ("🙂b", -2, NORMAL),
        ("🙂", 0, USER_DEFINED),
    ]
    entries += [
        ("bca", 0, USER_DEFINED),
        ("abca", -3, NORMAL),
        (f"{SPACE}{SPACE}", 0, USER_DEFINED),
        ("c🙂", -4, NORMAL),
    ]
    library, ours = both(model_of(entries))

    assert ours.encode(text).ids == library.encode(text)
    assert convert(model_of(entries).SerializeToString()).inexact == ()  # sentencepiece makes no 🙂b either


# Characters that are no pieces


RARE: list[Entry] = [
    *META,
    ("a", 0, NORMAL),
    ("b", 0, NORMAL),
    ("éb", -1, NORMAL),
    ("aéb", -2, NORMAL),
    ("ab", -3, NORMAL),
]


@pytest.mark.parametrize("bytes_", [[], BYTES], ids=["unknown", "bytes"])
def test_pieces_with_a_character_that_is_none_are_cut_out_and_named(bytes_: list[Entry]) -> None:
    proto = model_of([*RARE, *bytes_, (SPACE, 0, NORMAL), ("ñb", -4, NORMAL), ("bñé", -5, NORMAL), ("é ", -6, NORMAL)])

    assert convert(proto.SerializeToString()).inexact == ("éb", "aéb", "ñb")  # nothing leads to bñé, no text to a space
    library, ours = both(proto)
    for text in ["abab", "aüb", "ba", "üaüü", "éb", "aéb ñb", "ñbñba", "éaéb"]:
        assert ours.encode(text).ids == library.encode(text)
        if bytes_:
            assert ours.decode(ours.encode(text).ids) == text


def test_a_neighbour_can_take_a_part_of_a_piece_that_is_cut_out() -> None:
    """The one known case in which ids differ: it is why these pieces are named."""
    entries = [*META, *BYTES, ("a", 0, NORMAL), ("aa", -1, NORMAL), ("aé", -2, NORMAL)]
    library, ours = both(model_of(entries))

    assert ours.encode("aé").tokens == library.encode("aé", out_type=str) == ["aé"]
    assert library.encode("aaé", out_type=str) == ["aa", "<0xC3>", "<0xA9>"]
    assert ours.encode("aaé").tokens == ["a", "aé"]


@pytest.mark.parametrize("bytes_", [[], BYTES], ids=["unknown", "bytes"])
def test_behind_a_dummy_prefix_nothing_can_be_cut_out(bytes_: list[Entry]) -> None:
    proto = model_of([*RARE, *bytes_, (SPACE, 0, NORMAL), ("[UNUSED]", 0, USER_DEFINED)], prefix=True)

    assert set(convert(proto.SerializeToString()).inexact) == {"éb", "aéb", "[UNUSED]"}
    library, ours = both(proto)
    for text in ["abab", "aüb", "ba", " b a"]:
        assert ours.encode(text).ids == library.encode(text)


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_are_exact(name: str) -> None:
    assert convert(MODELS[name]().SerializeToString()).inexact == ()


def test_a_null_character_is_a_character() -> None:
    """InternLM2 has this piece; sentencepiece 0.2.3 does not load models that have."""
    entries = [*META, ("\0", 0, NORMAL), ("a", 0, NORMAL), ("\0a", -1, NORMAL)]

    assert loaded(convert(model_of(entries).SerializeToString())).encode("a\0\0a").ids == [4, 3, 5]


# Added tokens


def internlm2(**options: Any) -> Tokenizer:
    return loaded(convert(stored().SerializeToString(), CONFIG, **{"bos": "<s>"} | options))


def slow(text: str, added: Mapping[str, Any], library: SentencePieceProcessor) -> list[int]:
    """As slow tokenizers do: cut the added tokens out, the longest first, and encode the stretches between them."""
    numbers = {entry["content"]: int(number) for number, entry in added.items()}
    longest_first = sorted(numbers, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return [number for part in parts for number in ([numbers[part]] if part in numbers else library.encode(part))]


def test_the_stored_ids_of_upstreams_tokenizer() -> None:
    expected = json.loads((STORED / "expected_tokens.json").read_text())
    ours = internlm2()

    assert len(expected) > 5
    for case in expected:
        assert ours.encode(case["text"]).ids == case["ids"]


MIXED = st.lists(
    st.sampled_from([entry["content"] for entry in CONFIG.values()] + ["<", "|", ">", "<|", "[UNUSED_TOKEN_7]"])
    | TEXTS,
    max_size=8,
).map("".join)


@settings(max_examples=300)
@given(MIXED)
@example("<s> a</s>  <|im_end|>\n<IMG_CONTEXT><IMG_CONTEXT></img> <unk>")
def test_special_tokens_are_cut_out_of_the_text_first(text: str) -> None:
    library, _ = prepared("stored")

    assert internlm2_cached().encode(text).ids == [1, *slow(text, CONFIG, library)]


@cache
def internlm2_cached() -> Tokenizer:
    return internlm2()


@settings(max_examples=200)
@given(MIXED)
def test_every_stretch_gets_its_own_dummy_prefix(text: str) -> None:
    library, _ = prepared("prefix")
    added = {"1": token("<s>"), "2": token("</s>"), str(library.vocab_size()): token("<IMG_CONTEXT>", special=False)}

    assert prefixed().encode(text).ids == slow(text, added, library)


@cache
def prefixed() -> Tokenizer:
    proto = MODELS["prefix"]()
    added = {"1": token("<s>"), "2": token("</s>"), str(len(proto.pieces)): token("<IMG_CONTEXT>", special=False)}
    return loaded(convert(proto.SerializeToString(), added))


@settings(max_examples=200)
@given(st.text("ab<>cx ", max_size=20))
def test_added_tokens_precede_user_defined_pieces_that_overlap(text: str) -> None:
    """In x<a> the user-defined x< is the first match, but upstream looks for the added <a> before it."""
    entries = [*META, *((c, 0, NORMAL) for c in "abcx<> "), ("x<", 0, USER_DEFINED), ("b<a>c", 0, USER_DEFINED)]
    library = SentencePieceProcessor()
    library.LoadFromSerializedProto(model_of(entries).SerializeToString())
    added = {str(len(entries)): token("<a>"), str(len(entries) + 1): token("c c", special=False, normalized=True)}
    ours = loaded(convert(model_of(entries).SerializeToString(), added))

    assert ours.encode(text).ids == slow(text, added, library)


def test_a_renamed_piece_has_the_new_name_only() -> None:
    ours = internlm2(bos=None)

    assert (ours.token_to_id("<|im_end|>"), ours.id_to_token(201)) == (201, "<|im_end|>")
    assert ours.token_to_id("[UNUSED_TOKEN_198]") is None
    assert ours.encode("<|im_end|>").ids == [201]
    spelt = ours.encode("[UNUSED_TOKEN_198]").ids
    assert len(spelt) > 1
    assert ours.decode(spelt) == "[UNUSED_TOKEN_198]"
    assert ours.encode("[UNUSED_TOKEN_197]").ids == [200]


def test_the_unknown_piece_can_be_renamed() -> None:
    ours = loaded(convert(model_of([*META, ("a", 0, NORMAL)]).SerializeToString(), {"0": token("<none>")}))

    assert ours.encode("aéa<none><unk>").ids == [3, 0, 3, 0, 0]


def test_added_tokens_keep_their_ids_and_flags() -> None:
    ours = internlm2()
    added = ours.get_added_tokens_decoder()

    for number, entry in CONFIG.items():
        assert added[int(number)].__getstate__() == entry
    assert ours.get_vocab_size() == 597
    assert ours.decode([1, 202, 542, 201, 596]) == "u"
    assert ours.decode([1, 202, 542, 201, 596], skip_special_tokens=False) == "<s><|im_start|>u<|im_end|></box>"


@pytest.mark.parametrize("text", ["<0x41>", "<0x0A>", "<s", "<mask>", "<pad>"])
def test_pieces_for_bytes_and_control_are_never_made_of_text(text: str) -> None:
    entries = [*META, *BYTES, ("<pad>", 0, CONTROL), ("<mask>", 0, CONTROL), *((c, 0, NORMAL) for c in "<0x41>smakpd")]
    library, ours = both(model_of([entry for i, entry in enumerate(entries) if entry not in entries[:i]]))

    assert ours.encode(text).ids == library.encode(text)
    assert len(ours.encode(text).ids) == len(text)
    assert ours.decode(ours.encode(text).ids) == text


def test_text_is_not_joined_to_pieces_for_bytes_and_control() -> None:
    entries = [*META, *BYTES, *((c, 0, NORMAL) for c in "<0x41>s"), ("<0x4", -1, NORMAL), ("1>", -2, NORMAL)]
    entries += [("<0", -3, NORMAL), ("x4", -4, NORMAL), ("<s", -5, NORMAL)]
    library, ours = both(model_of(entries))
    pieces = ["<0x4", "1>", "<s", ">"]

    assert ours.encode("<0x41><s>").ids == library.encode("<0x41><s>") == library.piece_to_id(pieces)


def test_an_added_token_is_no_piece_that_characters_turn_into() -> None:
    entries = [*META, *BYTES, ("a", 0, NORMAL)]
    ours = loaded(convert(model_of(entries).SerializeToString(), {"260": token(SPACE)}))
    space = [3 + byte for byte in SPACE.encode()]

    assert ours.encode(f"a {SPACE}a").ids == [259, *space, 260, 259]


@pytest.mark.parametrize(
    ("bos", "eos", "one", "two"),
    [
        (None, None, [531], [531, 530]),
        ("<s>", None, [1, 531], [1, 531, 530]),
        (None, "</s>", [531, 2], [531, 530, 2]),
        ("<s>", "</s>", [1, 531, 2], [1, 531, 530, 2]),
        ("<|im_start|>", "<box>", [202, 531, 595], [202, 531, 530, 595]),
        ("</s>", "</s>", [2, 531, 2], [2, 531, 530, 2]),
    ],
)
def test_bos_and_eos_are_put_where_they_are_wanted(bos: str, eos: str, one: list[int], two: list[int]) -> None:
    ours = internlm2(bos=bos, eos=eos)

    assert ours.encode("t").ids == one
    assert ours.encode("t", "e").ids == two
    assert ours.encode("t", "e").type_ids == [0] * len(two)
    assert ours.encode("t", add_special_tokens=False).ids == [531]


def test_transformers_loads_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = json.loads((STORED / "tokenizer_config.json").read_text())
    config = {key: value for key, value in config.items() if key != "auto_map"}
    made = convert(stored().SerializeToString(), CONFIG, bos="<s>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(made.contents, ensure_ascii=False))
    bare = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    whole = AutoTokenizer.from_pretrained(tmp_path)

    for case in json.loads((STORED / "expected_tokens.json").read_text()):
        assert bare(case["text"])["input_ids"] == whole(case["text"])["input_ids"] == case["ids"]
        assert whole.decode(case["ids"], skip_special_tokens=True) == internlm2_cached().decode(case["ids"])


# Refusals


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (model_of(META, model_type=1), "its algorithm is UNIGRAM, not BPE"),
        (model_of(META, model_type=4), "its algorithm is CHAR, not BPE"),
        (model_of(META, suffix=True), "it puts spaces behind words (treat_whitespace_as_suffix)"),
        (model_of(META, escape=False), "it keeps spaces as they are (escape_whitespaces is false)"),
        (model_of(META, remove=True), "it drops spaces (remove_extra_whitespaces)"),
        (model_of(META, charsmap=b"x"), "it replaces characters (normalizer_spec.precompiled_charsmap)"),
        (
            model_of(META, output_charsmap=b"x"),
            "it replaces decoded characters (denormalizer_spec.precompiled_charsmap)",
        ),
        (model_of([*META, ("a", 0, UNUSED)]), "the unused piece 'a' can appear, and is cut up again"),
        (
            model_of([*META, ("a", 0, NORMAL), ("aa", 0, UNUSED), ("aaa", -1, NORMAL)]),
            "the unused piece 'aa' can appear, and is cut up again",
        ),
        (model_of([*META, ("a", 0, CONTROL)]), "its control piece is one character, 'a'"),
        (model_of([("?", 0, UNKNOWN)]), "its unknown piece is one character, '?'"),
        (model_of([*META, *BYTES, ("<0x4a>", 0, NORMAL)]), "'<0x4a>' would be decoded as a byte"),
        (model_of([*META, *BYTES, ("<0x+1>", 0, CONTROL)]), "'<0x+1>' would be decoded as a byte"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_said_in_tokenizer_json_is_refused(proto: Any, reason: str) -> None:
    with pytest.raises(CompanionFileError) as caught:
        convert(proto.SerializeToString())
    assert re.fullmatch(
        r".*/tokenizer\.model cannot be turned into a fast tokenizer with the same ids: " + re.escape(reason) + r"\.",
        caught.value.reason,
    )
    assert caught.value.remedy == "Give a directory with a fast tokenizer (tokenizer.json) by --tokenizer."


VARIED = model_of(
    [
        *META,
        *BYTES,
        ("a", 0, NORMAL),
        ("aa", -1, NORMAL),
        ("xyz", -2, NORMAL),
        (SPACE * 2, 0, USER_DEFINED),
        ("ü", 0, USER_DEFINED),
    ]
)


@pytest.mark.parametrize(
    ("number", "name", "reason"),
    [
        (259, "<a>", "its piece 'a' cannot be called '<a>'"),
        (260, "<a>", "its piece 'aa' cannot be called '<a>'"),
        (3, "<a>", "its piece '<0x00>' cannot be called '<a>'"),
        (2, SPACE, f"its piece '</s>' cannot be called '{SPACE}'"),
        (262, SPACE * 2, "an added token is also a user-defined piece with a space"),
        (264, "<0x4a>", "'<0x4a>' would be decoded as a byte"),
    ],
)
def test_names_that_would_change_the_ids_of_text_are_refused(number: int, name: str, reason: str) -> None:
    with pytest.raises(CompanionFileError) as caught:
        convert(VARIED.SerializeToString(), {str(number): token(name)})
    assert caught.value.reason.endswith(
        f"tokenizer.model cannot be turned into a fast tokenizer with the same ids: {reason}."
    )


@pytest.mark.parametrize(("number", "name"), [(1, "<start>"), (261, "<a>"), (263, "<b>"), (263, "ü"), (264, "ab")])
def test_other_pieces_can_be_renamed_or_cut_out(number: int, name: str) -> None:
    ours = loaded(convert(VARIED.SerializeToString(), {str(number): token(name)}))

    assert ours.encode(f"a{name}a  a").ids == [259, number, 259, 262, 259]


def test_a_piece_that_is_an_added_token_is_cut_out_before_others_are_made() -> None:
    ours = loaded(convert(VARIED.SerializeToString(), {"261": token("xyz"), "260": token("aa")}))

    assert ours.encode("aaaxyza").ids == [260, 259, 261, 259]


@pytest.mark.parametrize(("left", "right"), [(True, False), (False, True), (True, True)])
def test_a_token_can_take_the_spaces_around_it(left: bool, right: bool) -> None:
    library = SentencePieceProcessor(model_proto=stored().SerializeToString())
    ours = loaded(convert(stored().SerializeToString(), {"588": token("<img>", lstrip=left, rstrip=right)}))
    before, after = "a" if left else "a \u3000", "b" if right else "\t b"

    expected = [*library.encode(before), 588, *library.encode(after)]
    assert ours.encode("a \u3000<img>\t b").ids == expected


@pytest.mark.parametrize("flag", ["single_word"])
def test_tokens_that_look_around_them_are_refused(flag: str) -> None:
    with pytest.raises(CompanionFileError) as caught:
        convert(VARIED.SerializeToString(), {"264": token("<a>", **{flag: True})})
    assert caught.value.reason == (
        f"{ORIGIN} cannot be turned into a fast tokenizer with the same ids: "
        f"'<a>' is one as a whole word only (single_word)."
    )


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        ({"265": token("<a>")}, "there is a token with the id 265, but none with 264"),
        ({"264": token("<a>"), "266": token("<b>")}, "there is a token with the id 266, but none with 265"),
        ({"264": token("aa")}, "'aa' has two ids, counting the pieces"),
        ({"264": token("<a>"), "265": token("<a>")}, "'<a>' has two ids, counting the pieces"),
        ({"261": token("<s>")}, "'<s>' has two ids, counting the pieces"),
        ({"x": token("<a>")}, "the entry 'x' is not an id with a text: {'content': '<a>'"),
        ({"-1": token("<a>")}, "the entry '-1' is not an id with a text"),
        ({"0264": token("<a>")}, "the entry '0264' is not an id with a text"),
        ({"2640000000": token("<a>")}, "the entry '2640000000' is not an id with a text"),
        ({"264": "<a>"}, "the entry '264' is not an id with a text: '<a>'"),
        ({"264": token("")}, "the entry '264' is not an id with a text"),
        ({"264": {"content": 1}}, "the entry '264' is not an id with a text: {'content': 1}"),
        ({"264": token("<a>", special="yes")}, "the flags of '<a>' are not all true or false"),
        ({"264": token("<a>", lstrip=1)}, "the flags of '<a>' are not all true or false"),
    ],
)
def test_malformed_added_tokens_are_refused(added: dict[str, Any], reason: str) -> None:
    with pytest.raises(CompanionFileError) as caught:
        convert(VARIED.SerializeToString(), added)
    assert caught.value.reason.startswith(
        f"The added tokens of {ORIGIN} (added_tokens_decoder) cannot be used: {reason}"
    )
    assert (
        caught.value.remedy
        == "Correct them. Or: Give a directory with a fast tokenizer (tokenizer.json) by --tokenizer."
    )


@pytest.mark.parametrize("which", ["bos", "eos"])
def test_a_bos_or_eos_without_an_id_is_refused(which: str) -> None:
    with pytest.raises(CompanionFileError, match=r"cannot be used: '<start>' is not one of them, and not a piece\."):
        convert(VARIED.SerializeToString(), **{which: "<start>"})


def test_flags_that_are_not_given_are_false() -> None:
    ours = loaded(convert(VARIED.SerializeToString(), {"264": {"content": "<a>"}}))

    assert ours.decode([264]) == "<a>"  # not special
    assert ours.encode("a<a>").ids == [259, 264]
