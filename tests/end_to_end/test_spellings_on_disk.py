"""Whatever transformers and trainers leave on disk is read, and any spelling can become any other and come back.

Runs in transformers 5 and in 4.57 (``make test-matrix``). What is expected are the stored custom checkpoints, the
logits of upstream's own models, what transformers itself writes and loads, and spellings made by hand below.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support import DATA, copy_custom, edit_json, files_of, load_all, rewrite, said, same_bits, shard
from transformers import AutoConfig, InternVLForConditionalGeneration
from transformers.utils import logging

import internvl_bridge

logging.set_verbosity_error()
logging.disable_progress_bar()

MAJOR = int(transformers.__version__.split(".")[0])
TOLERANCE = 2e-5  # as in test_parity.py
MOE, TIED = "qwen3moe-6b", "qwen3-300m-tied"
MODELS = ("qwen2-300m", TIED, MOE, "gptoss-300m", "internlm2-300m")
HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"

Tensors = Mapping[str, torch.Tensor]


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not same_bits(found[key], expected[key])] == []


def in_l1(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors in any spelling as transformers 4.52 writes them, without a head that copies the embeddings."""
    renames = {
        r"model\.language_model\.(model\.)?": "language_model.model.",
        r"lm_head\.": "language_model.lm_head.",
        r"model\.(vision_tower|multi_modal_projector)\.": r"\1.",
    }
    result = {}
    for key, tensor in tensors.items():
        pattern = next((pattern for pattern in renames if re.match(pattern, key)), "$^")
        result[re.sub(f"^{pattern}", renames.get(pattern, ""), key)] = tensor
    if HEAD in result and same_bits(result[HEAD], result[EMBEDDINGS]):
        del result[HEAD]
    return dict(split_experts(result))


def split_experts(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    of_moe = not any("experts.gate_up_proj_bias" in key for key in tensors)  # GPT-OSS has these, and one way
    for key, tensor in tensors.items():
        before, experts, part = key.partition(".experts.")
        if not (of_moe and part in {"gate_up_proj", "down_proj"}):
            yield key, tensor
            continue
        for number, matrix in enumerate(tensor):
            halves = matrix.chunk(2) if part == "gate_up_proj" else [matrix]
            for name, half in zip(("gate", "up") if part == "gate_up_proj" else ("down",), halves, strict=True):
                yield f"{before}{experts}{number}.{name}_proj.weight", half


def spelled(l1: Tensors, layout: str, experts: str) -> dict[str, torch.Tensor]:
    """Tensors spelled as transformers 4.52 does, in another way."""
    tensors = dict(l1)
    if experts == "fused":
        for layer in {key.partition(".experts.")[0] for key in l1 if ".experts.0." in key}:
            found = sum(key.startswith(f"{layer}.experts.") for key in l1) // 3
            names = [f"{layer}.experts.{number}" for number in range(found)]
            gates, ups, downs = (
                [tensors.pop(f"{name}.{part}_proj.weight") for name in names] for part in ("gate", "up", "down")
            )
            pairs = zip(gates, ups, strict=True)
            tensors[f"{layer}.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
            tensors[f"{layer}.experts.down_proj"] = torch.stack(downs)
    if layout == "l1":
        return tensors
    return {
        "lm_head.weight" if key == HEAD else f"model.{key.replace('language_model.model.', 'language_model.')}": tensor
        for key, tensor in tensors.items()
    }


def test_spelling_by_hand_is_undone_by_hand():
    l1 = load_file(DATA / "hf" / f"{MOE}@5.4.0" / "model.safetensors")
    for layout in ("l1", "l2"):
        for experts in ("split", "fused"):
            assert_same(in_l1(spelled(in_l1(l1), layout, experts)), in_l1(l1))


# --- What transformers writes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A stored custom checkpoint, its model in the installed transformers, and all that this writes of it."""

    name: str
    directory: Path
    state: Tensors

    @property
    def custom(self) -> Path:
        return self.directory / "custom"

    def found(self, kind: str) -> dict[str, str | None]:
        """What the report has to say about ``directory / kind``."""
        raw = kind in {"raw", "raw, pickled"}
        fused = raw and self.name == MOE and MAJOR >= 5
        copies = raw or kind in {"pickled", "pickled shards"}
        return {
            "container": "pytorch_model.bin" if "pickled" in kind else "safetensors",
            "format": "hf",
            "spelling": ("L2" if raw else "L1") + (" with fused experts" if fused else ""),
            "head": "own" if self.name != TIED else "copy" if copies else "shared",
            "saved_by": transformers.__version__,
        }


KINDS = ("saved", "shards", "raw", "raw, pickled", *(("pickled", "pickled shards") if MAJOR == 4 else ()))


def load(directory: Path, dtype: torch.dtype | str = "auto") -> InternVLForConditionalGeneration:
    """The model in ``directory``, of which nothing may be missing or left over."""
    model, loading = InternVLForConditionalGeneration.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading.values()), loading
    return model.eval()


def assert_logits_are_upstreams(directory: Path, name: str) -> None:
    expected = load_file(DATA / "expected" / f"{name}.safetensors")
    model = load(directory, torch.float32)
    with torch.no_grad():
        logits = model(pixel_values=expected["pixel_values"], input_ids=expected["input_ids"]).logits
    assert (logits - expected["logits"]).abs().max().item() <= TOLERANCE


def make(name: str, directory: Path) -> Made:
    internvl_bridge.to_hf(copy_custom(name, directory / "custom"), directory / "hf")
    model = load(directory / "hf")
    model.save_pretrained(directory / "saved")
    model.save_pretrained(directory / "shards", max_shard_size="100KB")
    if MAJOR == 4:
        model.save_pretrained(directory / "pickled", safe_serialization=False)
        model.save_pretrained(directory / "pickled shards", safe_serialization=False, max_shard_size="100KB")
    state = model.state_dict()
    for kind in ("raw", "raw, pickled"):
        model.config.save_pretrained(directory / kind)
    torch.save(state, directory / "raw, pickled" / "pytorch_model.bin")
    save_file({key: tensor.clone() for key, tensor in state.items()}, directory / "raw" / "model.safetensors")
    return Made(name, directory, state)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """What there is of a model, made once: not to be changed."""
    return cache(lambda name: make(name, tmp_path_factory.mktemp("made")))


def custom_tensors(name: str) -> dict[str, torch.Tensor]:
    """Those of the stored custom checkpoint, with the copy of its embeddings that a tied one gets."""
    tensors = load_all(DATA / "custom" / name)
    return {**tensors, HEAD: tensors[EMBEDDINGS]} if name == TIED else tensors


def test_transformers_writes_what_these_tests_are_about(made):
    assert len(list((made(MOE).directory / "shards").glob("model-*-of-*.safetensors"))) > 2
    assert "model.language_model.embed_tokens.weight" in load_all(made(TIED).directory / "raw")
    fused = "model.language_model.layers.1.mlp.experts.gate_up_proj" in load_all(made(MOE).directory / "raw")
    assert fused is (MAJOR >= 5)
    for name in MODELS:
        assert_same(load_all(made(name).directory / "shards"), load_all(made(name).directory / "saved"))
        raw = torch.load(made(name).directory / "raw, pickled" / "pytorch_model.bin", weights_only=True)
        assert_same(raw, load_all(made(name).directory / "raw"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_writes_becomes_the_custom_checkpoint(name: str, kind: str, made, tmp_path: Path):
    model = made(name)
    report = internvl_bridge.to_custom(model.directory / kind, tmp_path / "custom", reference=model.custom)
    assert report.found.as_json().items() >= model.found(kind).items()
    assert_same(load_all(tmp_path / "custom"), custom_tensors(name))
    assert report.reference is not None
    assert report.reference.identical
    assert internvl_bridge.verify(tmp_path / "custom", model.directory / kind).identical
    before, after = (json.loads((path / "config.json").read_text()) for path in (model.custom, tmp_path / "custom"))
    assert after["llm_config"]["architectures"] == before["llm_config"]["architectures"]
    assert after["llm_config"]["rope_theta"] == before["llm_config"]["rope_theta"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_writes_is_repaired(name: str, kind: str, made, tmp_path: Path):
    model = made(name)
    report = internvl_bridge.repair(model.directory / kind, tmp_path / "repaired")
    assert report.found.as_json().items() >= model.found(kind).items()
    assert report.format == "hf"
    found = internvl_bridge.inspect(tmp_path / "repaired")
    assert (found.spelling, found.container, found.refusal) == ("L1", "safetensors", None)
    assert_same(load_all(tmp_path / "repaired"), load_all(model.directory / "saved"))
    assert_same(load(tmp_path / "repaired").state_dict(), model.state)
    if kind in {"saved", "raw"}:
        assert_logits_are_upstreams(tmp_path / "repaired", name)
    assert internvl_bridge.verify(model.directory / kind, tmp_path / "repaired").identical
    assert internvl_bridge.verify(tmp_path / "repaired", model.directory / kind).identical


@pytest.mark.parametrize("name", MODELS)
def test_the_spelling_of_a_state_dict_is_that_of_transformers(name: str, made, tmp_path: Path):
    experts = "fused" if MAJOR >= 5 else "split"
    internvl_bridge.repair(made(name).directory / "saved", tmp_path / "raw", layout="l2", experts=experts)
    state = {key: tensor for key, tensor in made(name).state.items() if name != TIED or key != "lm_head.weight"}
    assert_same(load_all(tmp_path / "raw"), state)
    assert_same(load(tmp_path / "raw").state_dict(), made(name).state)


# --- What other versions of transformers wrote --------------------------------------------------------------------

STORED = {
    f"{MOE}@5.0.0": ("L1 with fused experts", "own", "5.0.0"),
    f"{MOE}@5.4.0": ("L3", "own", "5.4.0"),
    "qwen2-300m@state-dict": ("L2", "own", None),
    f"{TIED}@5.0.0": ("L1", "shared", "5.0.0"),
    f"{TIED}@5.4.0": ("L3", "shared", "5.4.0"),
}


def test_every_stored_sample_is_tested():
    assert sorted(STORED) == sorted(path.name for path in (DATA / "hf").iterdir())


@pytest.mark.parametrize("sample", STORED)
def test_what_other_versions_wrote_becomes_the_custom_checkpoint(sample: str, tmp_path: Path):
    name = sample.partition("@")[0]
    custom = copy_custom(name, tmp_path / "original")
    report = internvl_bridge.to_custom(DATA / "hf" / sample, tmp_path / "custom", reference=custom)
    assert (report.found.spelling, report.found.head, report.found.saved_by) == STORED[sample]
    assert (report.found.container, report.found.format) == ("safetensors", "hf")
    assert_same(load_all(tmp_path / "custom"), custom_tensors(name))


@pytest.mark.parametrize("sample", STORED)
def test_what_other_versions_wrote_is_repaired(sample: str, made, tmp_path: Path):
    name = sample.partition("@")[0]
    report = internvl_bridge.repair(DATA / "hf" / sample, tmp_path / "repaired")
    assert (report.found.spelling, report.found.head, report.found.saved_by) == STORED[sample]
    assert internvl_bridge.inspect(tmp_path / "repaired").spelling == "L1"
    assert_same(load_all(tmp_path / "repaired"), load_all(made(name).directory / "saved"))
    assert_same(load(tmp_path / "repaired").state_dict(), made(name).state)
    assert_logits_are_upstreams(tmp_path / "repaired", name)


@pytest.mark.parametrize("source", [*STORED, *MODELS])
def test_a_repaired_config_means_to_the_installed_version_what_the_custom_one_says(source: str, made, tmp_path: Path):
    name, _, version = source.partition("@")
    directory = DATA / "hf" / source if version else made(name).directory / "raw"
    internvl_bridge.repair(directory, tmp_path / "repaired")
    config, text = AutoConfig.from_pretrained(tmp_path / "repaired"), load_text_config(tmp_path / "repaired")
    stated = json.loads((DATA / "custom" / name / "config.json").read_text())["llm_config"]
    theta = text.rope_parameters["rope_theta"] if MAJOR >= 5 else text.rope_theta
    assert theta == stated["rope_theta"]
    assert theta != 10_000 or name == "gptoss-300m"
    same = ["hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size"]
    same += ["num_experts", "moe_intermediate_size", "norm_topk_prob"] if name == MOE else []
    same += ["num_local_experts", "sliding_window", "layer_types"] if name == "gptoss-300m" else []
    assert {field: getattr(text, field) for field in same} == {field: stated[field] for field in same}
    assert config.tie_word_embeddings is (name == TIED)
    assert text.tie_word_embeddings is (name == TIED)
    assert str(config.dtype) == "torch.bfloat16"


def load_text_config(directory: Path):
    return AutoConfig.from_pretrained(directory).text_config


# --- Any spelling becomes any other, and comes back ---------------------------------------------------------------

TOKENIZER = DATA / "tokenizers" / "bpe"
SPELLINGS = [(layout, experts) for layout in ("l1", "l2") for experts in ("split", "fused")]
SOURCES = [*STORED, *(f"{name} {kind}" for name in MODELS for kind in ("saved", "raw"))]


def source_of(words: str, made) -> Path:
    name, _, kind = words.partition(" ")
    return made(name).directory / kind if kind else DATA / "hf" / name


@pytest.mark.parametrize(("layout", "experts"), SPELLINGS)
@pytest.mark.parametrize("words", [words for words in SOURCES if MOE in words or "gptoss" in words])
def test_experts_come_back_from_every_spelling(words: str, layout: str, experts: str, made, tmp_path: Path):
    check_there_and_back(source_of(words, made), layout, experts, tmp_path)


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("words", [words for words in SOURCES if MOE not in words and "gptoss" not in words])
def test_tensors_come_back_from_every_spelling(words: str, layout: str, made, tmp_path: Path):
    check_there_and_back(source_of(words, made), layout, "split", tmp_path)


def check_there_and_back(source: Path, layout: str, experts: str, directory: Path) -> None:
    l1, spelling = in_l1(load_all(source)), internvl_bridge.inspect(source).spelling or ""
    internvl_bridge.repair(source, directory / "there", layout=layout, experts=experts)
    assert_same(load_all(directory / "there"), spelled(l1, layout, experts))
    first = {"layout": "l2" if "L2" in spelling else "l1", "experts": "fused" if "fused" in spelling else "split"}
    expected = l1 if "L3" in spelling else load_all(source)  # no version still writes L3
    if HEAD not in l1:
        expected = {key: tensor for key, tensor in expected.items() if key != "lm_head.weight"}
    internvl_bridge.repair(directory / "there", directory / "back", **first)
    assert_same(load_all(directory / "back"), expected)
    internvl_bridge.to_custom(directory / "there", directory / "custom")
    internvl_bridge.to_hf(directory / "custom", directory / "home", tokenizer=TOKENIZER, **first)
    assert_same(load_all(directory / "home"), expected)


STEPS = st.one_of(
    st.tuples(st.just("repair"), st.sampled_from(SPELLINGS)),
    st.tuples(st.just("by way of the custom format"), st.sampled_from(SPELLINGS)),
    st.tuples(st.just("scatter"), st.integers(0, 99)),
    st.tuples(st.just("pickle"), st.none()),
)


@settings(max_examples=12)
@given(words=st.sampled_from([f"{MOE}@5.0.0", f"{MOE}@5.4.0", f"{TIED}@5.4.0"]), steps=st.lists(STEPS, max_size=4))
def test_any_way_round_leads_home(words: str, steps, tmp_path_factory: pytest.TempPathFactory):
    base, here = tmp_path_factory.mktemp("way"), DATA / "hf" / words
    for number, (step, choice) in enumerate(steps):
        there = base / str(number)
        match step:
            case "repair":
                internvl_bridge.repair(here, there, layout=choice[0], experts=choice[1])
            case "by way of the custom format":
                internvl_bridge.to_custom(here, base / f"{number} custom")
                spelling = {"layout": choice[0], "experts": choice[1]}
                internvl_bridge.to_hf(base / f"{number} custom", there, tokenizer=TOKENIZER, **spelling)
            case "scatter":
                internvl_bridge.repair(here, there, max_shard_size="5GB")
                shard(there, lambda key, seed=choice: crc32(f"{seed} {key}".encode()) % 3)
            case "pickle":
                internvl_bridge.repair(here, there, max_shard_size="5GB")
                torch.save(load_all(there), there / "pytorch_model.bin")
                (there / "model.safetensors").unlink()
        here = there
    internvl_bridge.repair(here, base / "home")
    assert_same(load_all(base / "home"), in_l1(load_all(DATA / "hf" / words)))


# --- Tied output heads --------------------------------------------------------------------------------------------


def without_sidecar(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(directory).items() if name != "internvl_bridge.json"}


def notes_with(words: str, report: internvl_bridge.ConversionReport) -> list[str]:
    return [note for note in said(report) if words in note]


def flip_a_bit(key: str, element: int = 77) -> Callable[[dict[str, torch.Tensor]], object]:
    def flip(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key].view(-1).view(torch.int16)[element] ^= 1

    return flip


def ties_of(directory: Path, text: str) -> tuple[object, object]:
    config = json.loads((directory / "config.json").read_text())
    return config.get("tie_word_embeddings"), config[text].get("tie_word_embeddings")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A complete HF checkpoint of a tied model that knows nothing of a custom one."""
    internvl_bridge.to_hf(copy_custom(TIED, tmp_path / "original"), tmp_path / "tied", order="name")
    (tmp_path / "tied" / "internvl_bridge.json").unlink()
    assert HEAD not in load_all(tmp_path / "tied")
    return tmp_path / "tied"


def test_a_tied_model_gets_a_copy_of_its_embeddings_as_head(tied: Path, tmp_path: Path):
    report = internvl_bridge.to_custom(tied, tmp_path / "custom")
    tensors = load_all(tmp_path / "custom")
    assert same_bits(tensors[HEAD], tensors[EMBEDDINGS])
    assert report.tensors == len(tensors) == len(load_all(DATA / "custom" / TIED)) + 1
    assert report.found.head == "shared"
    [note] = notes_with("is tied", report)
    assert f"{HEAD} is a copy of {EMBEDDINGS}" in note
    assert "--tied keep" in note
    assert ties_of(tmp_path / "custom", "llm_config") == (True, True)
    assert internvl_bridge.inspect(tmp_path / "custom").refusal is None


def test_a_tied_model_is_kept_tied_where_that_is_asked_for(tied: Path, tmp_path: Path):
    report = internvl_bridge.to_custom(tied, tmp_path / "custom", tied="keep")
    assert_same(load_all(tmp_path / "custom"), load_all(DATA / "custom" / TIED))
    assert notes_with("is tied", report) == []
    assert ties_of(tmp_path / "custom", "llm_config") == (True, True)


@pytest.mark.parametrize("choice", ["copy", "keep"])
def test_a_tied_model_comes_back_byte_for_byte(choice, tied: Path, tmp_path: Path):
    internvl_bridge.to_custom(tied, tmp_path / "custom", tied=choice)
    report = internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back", order="name")
    assert without_sidecar(tmp_path / "back") == files_of(tied)
    assert len(notes_with(f"{HEAD} is not written", report)) == (choice == "copy")
    assert report.found.head == ("copy" if choice == "copy" else "shared")
    again = internvl_bridge.to_custom(tmp_path / "back", tmp_path / "again")
    assert without_sidecar(tmp_path / "again") == without_sidecar(tmp_path / "custom")
    assert (HEAD in load_all(again.output)) is (choice == "copy")


def test_an_untied_source_is_no_matter_of_ties(tmp_path: Path):
    source = copy_custom("qwen3-300m", tmp_path / "custom")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    for choice in ("copy", "keep"):
        report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / choice, tied=choice)
        assert without_sidecar(tmp_path / choice) == files_of(source)
        assert notes_with("tied", report) == []


@pytest.mark.parametrize("key", [HEAD, EMBEDDINGS])
def test_a_head_that_was_trained_apart_is_kept(key: str, tied: Path, tmp_path: Path):
    internvl_bridge.to_custom(tied, tmp_path / "custom")
    rewrite(tmp_path / "custom", flip_a_bit(key))
    report = internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "hf")
    changed = load_all(tmp_path / "custom")
    assert same_bits(load_all(tmp_path / "hf")[HEAD], changed[HEAD])
    assert same_bits(load_all(tmp_path / "hf")[EMBEDDINGS], changed[EMBEDDINGS])
    assert ties_of(tmp_path / "hf", "text_config") == (False, False)
    assert report.found.head == "own"
    assert len(notes_with("a head of its own, which differs", report)) == 1
    model = load(tmp_path / "hf")
    assert same_bits(model.state_dict()["lm_head.weight"], changed[HEAD])
    assert not same_bits(changed[HEAD], changed[EMBEDDINGS])
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "again")
    assert_same(load_all(tmp_path / "again"), changed)


@pytest.mark.parametrize("kind", ["raw", "raw, pickled"])
def test_a_dumped_copy_of_the_embeddings_is_dropped_and_named(kind: str, made, tmp_path: Path):
    source = made(TIED).directory / kind
    report = internvl_bridge.repair(source, tmp_path / "repaired")
    assert HEAD not in load_all(tmp_path / "repaired")
    assert ties_of(tmp_path / "repaired", "text_config") == (True, True)
    assert len(notes_with(f"{HEAD} is not written", report)) == 1
    kept = internvl_bridge.to_custom(source, tmp_path / "kept", tied="keep")
    assert_same(load_all(tmp_path / "kept"), load_all(DATA / "custom" / TIED))
    assert len(notes_with(f"{HEAD} is not written", kept)) == 1
    copied = internvl_bridge.to_custom(source, tmp_path / "copied")
    assert_same(load_all(tmp_path / "copied"), custom_tensors(TIED))
    assert notes_with("is not written", copied) == []


def test_a_copy_that_was_stored_comes_back_stored(tmp_path: Path, tied: Path):
    internvl_bridge.repair(tied, tmp_path / "raw", layout="l2", order="name")
    embeddings = load_all(tmp_path / "raw")["model.language_model.embed_tokens.weight"]
    rewrite(tmp_path / "raw", lambda tensors: tensors.update({"lm_head.weight": embeddings.clone()}))
    internvl_bridge.to_custom(tmp_path / "raw", tmp_path / "custom")
    report = internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back", layout="l2", order="name")
    assert report.found.head == "copy"
    assert_same(load_all(tmp_path / "back"), load_all(tmp_path / "raw"))
    assert ties_of(tmp_path / "back", "text_config") == (True, True)
    model = load(tmp_path / "back")
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_dumped_head_that_differs_is_no_copy(made, tmp_path: Path):
    source = tmp_path / "raw"
    source.mkdir()
    for name, data in files_of(made(TIED).directory / "raw").items():
        (source / name).write_bytes(data)
    rewrite(source, flip_a_bit("lm_head.weight", -1))
    report = internvl_bridge.repair(source, tmp_path / "repaired")
    assert report.found.head == "own"
    assert same_bits(load_all(tmp_path / "repaired")[HEAD], load_all(source)["lm_head.weight"])
    assert ties_of(tmp_path / "repaired", "text_config") == (False, False)
    assert same_bits(load(tmp_path / "repaired").lm_head.weight.data, load_all(source)["lm_head.weight"])


def test_equal_heads_of_a_model_that_is_not_tied_stay_apart(tmp_path: Path):
    source = copy_custom("qwen3-300m", tmp_path / "custom")
    rewrite(source, lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS].clone()}))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert report.found.head == "own"
    assert same_bits(load_all(tmp_path / "hf")[HEAD], load_all(source)[HEAD])
    assert ties_of(tmp_path / "hf", "text_config") == (False, False)


def test_a_custom_checkpoint_without_a_head_comes_back_byte_for_byte(tmp_path: Path):
    source = copy_custom(TIED, tmp_path / "custom")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert without_sidecar(tmp_path / "back") == files_of(source)
    assert notes_with("is a copy of", report) == []
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "copied", tied="copy")
    assert_same(load_all(tmp_path / "copied"), custom_tensors(TIED))


def test_verify_knows_a_copy_from_a_head(tied: Path, tmp_path: Path):
    custom = tmp_path / "custom"
    internvl_bridge.to_custom(tied, custom)
    for left, right in ((custom, tied), (tied, custom)):
        found = internvl_bridge.verify(left, right)
        assert found.identical
        assert found.l2 == 0
    rewrite(custom, flip_a_bit(HEAD))
    assert not internvl_bridge.verify(custom, tied).identical
    assert internvl_bridge.verify(custom, tied).missing == (HEAD,)
    assert not internvl_bridge.verify(tied, custom).identical
    rewrite(custom, flip_a_bit(HEAD))
    assert internvl_bridge.verify(custom, tied).identical
    rewrite(custom, lambda tensors: [flip_a_bit(key)(tensors) for key in (HEAD, EMBEDDINGS)])
    assert [d.element for d in internvl_bridge.verify(custom, tied).differences] == [77]
    assert {d.element for d in internvl_bridge.verify(tied, custom).differences} == {77}


def test_internlm2_has_names_of_its_own_for_both(tmp_path: Path):
    head, embeddings = "language_model.output.weight", "language_model.model.tok_embeddings.weight"
    source = copy_custom("internlm2-300m", tmp_path / "custom")
    rewrite(source, lambda tensors: tensors.pop(head))
    edit_json(source / "config.json", lambda config: config["llm_config"].update(tie_word_embeddings=True))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert load(tmp_path / "hf").config.text_config.tie_word_embeddings is True
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "copied", tied="copy")
    [note] = notes_with("is tied", report)
    assert f"{head} is a copy of {embeddings}" in note
    tensors = load_all(tmp_path / "copied")
    assert_same(tensors, {**load_all(source), head: load_all(source)[embeddings]})
    assert internvl_bridge.verify(tmp_path / "copied", source).identical
    back = internvl_bridge.to_hf(tmp_path / "copied", tmp_path / "back")
    again, before = (without_sidecar(tmp_path / name) for name in ("back", "hf"))
    for files in (again, before):  # headers end with as many spaces as let the data be shared with the source
        files.pop("model.safetensors")
    assert again == before
    assert_same(load_all(tmp_path / "back"), load_all(tmp_path / "hf"))
    assert len(notes_with(f"{HEAD} is not written", back)) == 1
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "restored")
    assert without_sidecar(tmp_path / "restored") == files_of(source)
