"""Weights that transformers replaced by random ones are named, in whatever they are kept, and no others."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chunked_dumps import save_in_chunks
from safetensors.torch import load_file, save_file
from support import DATA, copy_custom, edit_json, load_all, rewrite, said
from thinning import rarely
from transformers import AutoConfig, InternVLForConditionalGeneration
from transformers.utils import logging

import internvl_bridge
from internvl_bridge.checkpoint import untrained
from internvl_bridge.checkpoint.model import Source, read_model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.checkpoint.random_matrix import looks_random
from internvl_bridge.checkpoint.untrained import sampled
from internvl_bridge.checkpoint.weights import open_weights, whole_specs
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE

logging.set_verbosity_error()
logging.disable_progress_bar()

SAMPLES = sorted(path.name for path in (DATA / "hf").iterdir())
MOE = ["qwen3moe-6b@5.0.0", "qwen3moe-6b@5.4.0"]
TIED, UNTIED = "qwen3-300m-tied@5.4.0", "qwen2-300m@state-dict"
HEADS = {  # as the versions that wrote the samples spell it
    "qwen2-300m@state-dict": "lm_head.weight",
    "qwen3-300m-tied@5.0.0": "language_model.lm_head.weight",
    "qwen3-300m-tied@5.4.0": "language_model.lm_head.weight",
    "qwen3moe-6b@5.0.0": "language_model.lm_head.weight",
    "qwen3moe-6b@5.4.0": "language_model.lm_head.weight",
}
RANDOM, TRAINED = "like the random numbers that a new model starts from", "training hides it"
COMMANDS = {"to_custom": internvl_bridge.to_custom, "repair": internvl_bridge.repair}

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], object]


def drawn(like: torch.Tensor, seed: int, deviation: float = 0.02) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(like.shape, generator=generator) * deviation).to(like.dtype)


def anew(*parts: str, deviation: float = 0.02, seed: int = 0) -> Change:
    """Draw every matrix anew whose key has one of ``parts`` in it."""

    def draw(tensors: Tensors) -> None:
        found = [key for key in sorted(tensors) if any(part in key for part in parts)]
        assert found
        tensors.update({key: drawn(tensors[key], seed + n, deviation) for n, key in enumerate(found)})

    return draw


def embeddings_of(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    [tensor] = [tensor for key, tensor in tensors.items() if key.endswith("embed_tokens.weight")]
    return tensor


def with_head(sample: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Give a checkpoint the output head that ``make`` makes of its embeddings."""
    return lambda tensors: tensors.update({HEADS[sample]: make(embeddings_of(tensors)).contiguous()})


def new_head(sample: str, deviation: float = 0.02, seed: int = 7) -> Change:
    return with_head(sample, lambda embeddings: drawn(embeddings, seed, deviation))


def changed(directory: Path, sample: str, *changes: Change) -> Path:
    """A stored HF sample, with ``changes`` made to its tensors."""
    shutil.copytree(DATA / "hf" / sample, directory)
    for change in changes:
        rewrite(directory, change)
    return directory


def configure(directory: Path, top: dict[str, Any] | None = None, **text: Any) -> None:
    """Set fields of config.json, and of its text_config; None removes one."""

    def edit(config: dict[str, Any]) -> None:
        for section, values in ((config, top or {}), (config["text_config"], text)):
            for name, value in values.items():
                section.pop(name, None)
                section.update({} if value is None else {name: value})

    edit_json(directory / "config.json", edit)


def notes(source: Path, command: str = "repair") -> list[str]:
    """The notes of a conversion that are about untrained weights."""
    output = source.with_name(f"{source.name}, {command}")
    report = COMMANDS[command](source, output)
    assert report.ok
    shutil.rmtree(output)
    return [note for note in said(report) if RANDOM in note or TRAINED in note]


# --- What is stored and what is new -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_stored_samples_are_trained(sample: str, command: str, tmp_path: Path):
    found = notes(changed(tmp_path / "hf", sample), command)
    if sample != "qwen3moe-6b@5.0.0":
        assert found == []
        return
    [note] = found  # its version has the bug
    assert note.startswith("transformers 5.0.0 wrote this checkpoint. ")
    assert TRAINED in note
    assert "internvl-bridge verify" in note
    assert RANDOM not in note


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_wholly_random_model_means_to_be_one(sample: str, command: str, tmp_path: Path):
    """As transformers itself makes it."""
    source = changed(tmp_path / "hf", sample)
    config = AutoConfig.from_pretrained(source)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    torch.manual_seed(5)
    model = InternVLForConditionalGeneration(config)
    for path in (tmp_path / "hf").iterdir():
        path.unlink()
    model.save_pretrained(source)
    configure(source, {"transformers_version": "5.0.0"})
    assert [note for note in notes(source, command) if RANDOM in note] == []


@pytest.mark.parametrize("part", ["embed_tokens.weight", "layers.0.self_attn.o_proj.weight"])
def test_one_random_matrix_that_was_never_replaced_excuses_the_others(part: str, tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, new_head(UNTIED))
    assert len(notes(source)) == 1
    rewrite(source, anew(part, seed=50))
    assert notes(source) == []


@pytest.mark.parametrize("part", ["embed_tokens.weight", "layers.0.self_attn.o_proj.weight"])
@pytest.mark.parametrize("fill", [0.0, 1.0, math.nan, math.inf, -math.inf])
def test_odd_numbers_where_trained_ones_should_be_are_no_obstacle(part: str, fill: float, tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, new_head(UNTIED))
    rewrite(source, lambda tensors: [t.fill_(fill) for key, t in tensors.items() if part in key])
    [note] = notes(source)
    assert note.startswith(f"{HEADS[UNTIED]} looks {RANDOM}")


# --- The output head ----------------------------------------------------------------------------------------------

TIES = {  # at the top, in text_config: (None is absent), and whether config.json calls the model tied
    "as 5.0.0 writes it": (None, True, True),
    "both": (True, True, True),
    "top alone": (True, None, True),
    "neither": (False, False, False),
    "not said": (None, None, False),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_new_head_is_named(sample: str, tie: str, command: str, tmp_path: Path):
    top, text, is_tied = TIES[tie]
    source = changed(tmp_path / "hf", sample, new_head(sample))
    configure(source, {"tie_word_embeddings": top, "transformers_version": "4.57.6"}, tie_word_embeddings=text)
    [note] = notes(source, command)
    assert note.startswith(f"{HEADS[sample]} looks {RANDOM}")
    if is_tied:
        assert "config.json calls the model tied. transformers 5.0 writes such a head" in note
        assert f"remove {HEADS[sample]} from the checkpoint, set tie_word_embeddings to true at both levels" in note
    else:
        assert "It was not trained, or transformers made it up" in note
        assert note.endswith("Nothing here brings it back.")


def test_the_way_out_of_a_new_head_leads_out(tmp_path: Path):
    """The note's own instructions, followed, give the tied model back."""
    source = changed(tmp_path / "hf", TIED, new_head(TIED))
    configure(source, {"tie_word_embeddings": None}, tie_word_embeddings=True)
    assert len(notes(source)) == 1
    rewrite(source, lambda tensors: tensors.pop(HEADS[TIED]))
    configure(source, {"tie_word_embeddings": True}, tie_word_embeddings=True)
    assert notes(source) == []
    model = internvl_bridge.load_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    expected = load_file(DATA / "expected" / "qwen3-300m-tied.safetensors")
    with torch.no_grad():
        logits = model(pixel_values=expected["pixel_values"], input_ids=expected["input_ids"]).logits
    assert (logits - expected["logits"]).abs().max().item() <= 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, *map(rarely, range(1, 3))])
def test_a_new_head_is_named_in_every_dtype(dtype: torch.dtype, seed: int, tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, lambda ts: ts.update({key: t.to(dtype) for key, t in ts.items()}))
    rewrite(source, new_head(UNTIED, seed=seed))
    assert len(notes(source)) == 1


HEADS_THAT_ARE_TRAINED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "of other numbers": lambda embeddings: embeddings.roll(1, 0) * 0.5,
    "close to the embeddings": lambda embeddings: (embeddings.float() + drawn(embeddings, 1).float()).bfloat16(),
    "a little wider": lambda embeddings: drawn(embeddings, 1, 0.021),
    "a little narrower": lambda embeddings: drawn(embeddings, 1, 0.0191),
    "with a little of the embeddings": lambda embeddings: (
        math.sqrt(1 - 0.15**2) * drawn(embeddings, 1).float()
        + 0.15 * 0.02 * embeddings.float() / embeddings.float().std()
    ).bfloat16(),
    "zeros": torch.zeros_like,
    "NaN": lambda embeddings: torch.full_like(embeddings, math.nan),
    "infinite": lambda embeddings: torch.full_like(embeddings, math.inf),
    "constant": lambda embeddings: torch.full_like(embeddings, 0.02),
    "with a NaN": lambda embeddings: drawn(embeddings, 1).index_fill_(0, torch.tensor([0]), math.nan),
}


@pytest.mark.parametrize("kind", HEADS_THAT_ARE_TRAINED)
@pytest.mark.parametrize("sample", [UNTIED, TIED])
def test_other_heads_are_not_named(sample: str, kind: str, tmp_path: Path):
    source = changed(tmp_path / "hf", sample, with_head(sample, HEADS_THAT_ARE_TRAINED[kind]))
    assert notes(source) == []


def test_a_head_that_only_its_relation_to_the_embeddings_excuses(tmp_path: Path):
    """Without that, it would be taken for a new one."""

    def hidden(embeddings: torch.Tensor) -> torch.Tensor:
        few = 0.15 * 0.02 * embeddings.float() / embeddings.float().std()
        return (math.sqrt(1 - 0.15**2) * drawn(embeddings, 1).float() + few).bfloat16()

    source = changed(tmp_path / "hf", UNTIED, with_head(UNTIED, hidden))
    model = read_model(Source(source))
    assert looks_random(sampled(model, HEADS[UNTIED]), 0.02)
    assert notes(source) == []


def test_a_copy_of_the_embeddings_is_no_head_of_its_own(tmp_path: Path):
    """Where the embeddings are new too, they are not even looked at."""
    source = changed(tmp_path / "hf", TIED, with_head(TIED, torch.clone))
    configure(source, {"tie_word_embeddings": True}, tie_word_embeddings=True)
    assert notes(source) == []


@pytest.mark.parametrize("name", ["internlm2-300m", "llama-6b", "phi3-300m", "gptoss-300m", "qwen3-6b"])
def test_a_new_head_of_any_family_is_named(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    assert notes(tmp_path / "hf") == notes(tmp_path / "hf", "to_custom") == []
    rewrite(tmp_path / "hf", anew("language_model.lm_head.weight"))
    for command in COMMANDS:
        [note] = notes(tmp_path / "hf", command)
        assert note.startswith("language_model.lm_head.weight looks")


def test_a_custom_checkpoint_is_not_asked(tmp_path: Path):
    custom = copy_custom("qwen3moe-6b", tmp_path / "custom")
    rewrite(custom, anew("lm_head.weight", ".experts."))
    report = internvl_bridge.to_hf(custom, tmp_path / "hf")
    assert [note for note in said(report) if RANDOM in note] == []
    assert len(notes(tmp_path / "hf")) == 2
    model = read_model(Source(custom))
    assert list(untrained.notes_on_untrained(model, plan_model(model, MOST_COMPATIBLE, stores_copy=False))) == []


def test_what_transformers_itself_makes_up_is_named(tmp_path: Path):
    """The installed version draws what it misses, and saves that."""
    source = changed(tmp_path / "hf", MOE[0])
    lost = ("lm_head.weight", ".experts.")
    rewrite(source, lambda ts: [ts.pop(key) for key in [*ts] if any(part in key for part in lost)])
    torch.manual_seed(11)
    model = InternVLForConditionalGeneration.from_pretrained(source)
    model.save_pretrained(tmp_path / "saved")
    for command in COMMANDS:
        head, experts = notes(tmp_path / "saved", command)
        assert "lm_head.weight looks" in head
        assert experts.startswith("The experts look")


# --- Experts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("version", ["5.0.0", "5.3.1", "5.4.0", "4.57.6", None])
@pytest.mark.parametrize("sample", MOE)
def test_new_experts_are_named(sample: str, version: str | None, command: str, tmp_path: Path):
    source = changed(tmp_path / "hf", sample, anew(".experts."))
    configure(source, {"transformers_version": version})
    [note] = notes(source, command)
    assert note.startswith(f"The experts look {RANDOM} (")
    assert "transformers 5.0 to 5.3 replace them" in note
    assert "they are in the checkpoint that was loaded then" in note
    looked = note.partition("(")[2].partition(" ")[0].rstrip(",")
    assert looked in load_all(source)
    assert ".experts." in looked


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("experts", ["split", "fused"])
def test_new_experts_are_named_in_every_spelling(layout: str, experts: str, tmp_path: Path):
    source = changed(tmp_path / "hf", MOE[1], anew(".experts."))
    internvl_bridge.repair(source, tmp_path / "spelled", layout=layout, experts=experts)
    found = [key for key in load_all(tmp_path / "spelled") if ".experts." in key]
    assert any(key.endswith(".experts.gate_up_proj") for key in found) is (experts == "fused")
    [note] = notes(tmp_path / "spelled")
    looked = note.partition("(")[2].partition(" were looked at)")[0]
    named = [word.rstrip(",") for word in looked.split() if ".experts." in word]
    assert named
    assert {*named} <= {*found}


def test_new_experts_and_a_new_head_are_both_named(tmp_path: Path):
    source = changed(tmp_path / "hf", MOE[0], anew(".experts."), new_head(MOE[0]))
    head, experts = notes(source)
    assert head.startswith("language_model.lm_head.weight looks")
    assert experts.startswith("The experts look")


@pytest.mark.parametrize("sample", MOE)
def test_experts_of_which_some_are_trained_are_not_named(sample: str, tmp_path: Path):
    """No version replaces those of one layer only."""
    source = changed(tmp_path / "hf", sample, anew("layers.0.mlp.experts."))
    configure(source, {"transformers_version": "5.6.0"})
    assert notes(source) == []


@pytest.mark.parametrize("version", ["5.0.0", "5.1.0", "5.2.0.dev0", "5.3.7"])
@pytest.mark.parametrize("sample", MOE)
def test_trained_experts_that_such_a_version_wrote_are_doubted(sample: str, version: str, tmp_path: Path):
    source = changed(tmp_path / "hf", sample)
    configure(source, {"transformers_version": version})
    [note] = notes(source)
    assert note.startswith(f"transformers {version} wrote this checkpoint.")
    assert TRAINED in note


@pytest.mark.parametrize("version", ["4.57.6", "5.4.0", "5.23.0", "5.30.0", "15.0.0", "5", "", None, 5.0, ["5.0.0"]])
@pytest.mark.parametrize("sample", MOE)
def test_trained_experts_that_other_versions_wrote_are_not(sample: str, version: Any, tmp_path: Path):
    source = changed(tmp_path / "hf", sample)
    configure(source, {"transformers_version": version})
    assert notes(source) == []


@pytest.mark.parametrize("fill", [0.0, 1.0, math.nan, math.inf])
@pytest.mark.parametrize("sample", MOE)
def test_experts_of_odd_numbers_are_not_named(sample: str, fill: float, tmp_path: Path):
    source = changed(tmp_path / "hf", sample)
    configure(source, {"transformers_version": None})
    rewrite(source, lambda tensors: [t.fill_(fill) for key, t in tensors.items() if ".experts." in key])
    assert notes(source) == []


def test_experts_of_gpt_oss_have_one_spelling_and_are_never_named(tmp_path: Path):
    internvl_bridge.to_hf(copy_custom("gptoss-300m", tmp_path / "custom"), tmp_path / "hf")
    rewrite(tmp_path / "hf", anew(".experts."))
    configure(tmp_path / "hf", {"transformers_version": "5.0.0"})
    assert [notes(tmp_path / "hf", command) for command in COMMANDS] == [[], []]


@pytest.mark.parametrize("sample", [UNTIED, TIED])
def test_a_model_without_experts_is_not_doubted(sample: str, tmp_path: Path):
    source = changed(tmp_path / "hf", sample)
    configure(source, {"transformers_version": "5.0.0"})
    assert notes(source) == []


def test_experts_of_all_layers_are_looked_at_but_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = changed(tmp_path / "hf", MOE[1], anew(".experts."))
    looked: list[str] = []
    sample = untrained.sampled
    monkeypatch.setattr(untrained, "sampled", lambda model, key: looked.append(key) or sample(model, key))
    assert len(notes(source)) == 1
    experts = [key for key in looked if ".experts." in key]
    assert len(experts) == len({*experts}) == 8
    assert {key.partition(".layers.")[2][0] for key in experts} == {"0", "1"}


# --- The deviation that config.json states ------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.006, 0.02, 0.05, 1])
@pytest.mark.parametrize("sample", [UNTIED, MOE[1]])
def test_the_deviation_of_a_new_head_is_that_of_config_json(sample: str, deviation: float, tmp_path: Path):
    source = changed(tmp_path / "hf", sample, new_head(sample, deviation))
    configure(source, {"transformers_version": None}, initializer_range=deviation)
    assert len(notes(source)) == 1
    configure(source, initializer_range=deviation * 1.1)
    assert notes(source) == []


def test_without_a_deviation_it_is_that_of_transformers(tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, new_head(UNTIED))
    configure(source, initializer_range=None)
    assert "initializer_range" not in json.loads((source / "config.json").read_text())["text_config"]
    assert len(notes(source)) == 1


ODD_RANGES = [0, 0.0, -0.02, -1, 5e-324, 1e-320, 1e-300, 1e100, 1e300, 1000]


@pytest.mark.parametrize("value", ODD_RANGES)
@pytest.mark.parametrize("sample", [UNTIED, MOE[1]])
def test_a_deviation_that_nothing_has_names_nothing(sample: str, value: float, tmp_path: Path):
    source = changed(tmp_path / "hf", sample, new_head(sample))
    configure(source, {"transformers_version": None}, initializer_range=value)
    assert notes(source) == notes(source, "to_custom") == []


@pytest.mark.parametrize("value", [10**400, 2**60, "two", True, [0.02], {}])
def test_a_deviation_that_is_no_number_is_refused(value: Any, tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, new_head(UNTIED))
    configure(source, initializer_range=value)
    with pytest.raises(internvl_bridge.BridgeError, match="initializer_range"):
        internvl_bridge.repair(source, tmp_path / "repaired")


def test_a_deviation_of_null_does_not_stop_a_conversion(tmp_path: Path):
    source = changed(tmp_path / "hf", UNTIED, new_head(UNTIED))
    edit_json(source / "config.json", lambda config: config["text_config"].update(initializer_range=None))
    with pytest.raises(internvl_bridge.BridgeError, match="initializer_range"):
        internvl_bridge.repair(source, tmp_path / "repaired")


# --- Samples of tensors, wherever they are kept -------------------------------------------------------------------


def as_safetensors(directory: Path, tensors: Tensors) -> None:
    save_file(tensors, directory / "model.safetensors")


def as_pickle(directory: Path, tensors: Tensors) -> None:
    torch.save(tensors, directory / "pytorch_model.bin")


KEEP = {"safetensors": as_safetensors, "pickle": as_pickle, "chunks": save_in_chunks}


def opened(directory: Path) -> Any:
    """As much of a model as samples are drawn of."""
    weights = open_weights(directory, lambda _: True)
    return SimpleNamespace(specs=whole_specs(weights), weights=weights, checkpoint=weights.checkpoint)


def evenly_spaced(tensor: torch.Tensor, rows: int, columns: int) -> list[list[float]]:
    """The first ``columns`` of as many rows of ``tensor``."""
    flat = tensor.double().reshape(-1, tensor.shape[-1])
    return [flat[len(flat) * n // rows, :columns].tolist() for n in range(rows)]


def matrices(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    shapes = {
        "wide": (5, 9000),
        "high": (700, 64),
        "small": (4, 6),
        "stacked": (3, 50, 200),
        "one row": (1, 8),
        "two rows": (2, 20_000),
        "one column": (9, 1),
    }
    result = {}
    for number, (name, shape) in enumerate(shapes.items()):
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64).to(dtype)
        tensor.view(-1)[:4] = torch.tensor([math.inf, -math.inf, -0.0, 1e-7], dtype=dtype)
        result[name] = tensor
    return result


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_samples_are_of_evenly_spaced_rows(dtype: torch.dtype, keep: str, tmp_path: Path):
    tensors = matrices(dtype)
    KEEP[keep](tmp_path, tensors)
    model = opened(tmp_path)
    for name, tensor in tensors.items():
        found = [list(row) for row in sampled(model, name)]
        rows, columns = len(found), len(found[0])
        assert found == evenly_spaced(tensor, rows, columns), name
        assert rows >= min(2, tensor.numel() // tensor.shape[-1])
        wanted = min(16_384, tensor.numel())
        assert min(8192, wanted) <= rows * columns <= max(16_384, 2 * tensor.shape[-1])


def test_nan_is_sampled_as_nan(tmp_path: Path):
    for number, dtype in enumerate((torch.bfloat16, torch.float16, torch.float32, torch.float64)):
        directory = tmp_path / str(number)
        directory.mkdir()
        as_safetensors(directory, {"x": torch.full((2, 3), math.nan, dtype=dtype)})
        assert all(math.isnan(value) for row in sampled(opened(directory), "x") for value in row)


def test_little_is_read_of_a_large_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    as_safetensors(tmp_path, {"x": torch.ones(4000, 2048, dtype=torch.bfloat16)})
    read: list[Any] = []
    windows = untrained.FileReader.windows

    def watched(self: Any, ranges: Any) -> Any:
        read.extend(ranges)
        return windows(self, ranges)

    monkeypatch.setattr(untrained.FileReader, "windows", watched)
    rows = sampled(opened(tmp_path), "x")
    assert {value for row in rows for value in row} == {1.0}
    assert sum(byte_range.length for byte_range in read) == sum(map(len, rows)) * 2 == 16_384 * 2
    assert len({byte_range.offset for byte_range in read}) == len(rows)


# Hidden sizes of the releases are 896 to 8192; experts are as narrow as 768.
@pytest.mark.parametrize(("width", "count"), [(768, 40), *(rarely((w, 200)) for w in (768, 2048, 4096, 5120, 8192))])
def test_new_heads_of_every_width_are_fresh(width: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By 200 draws each: to miss one head in seventy would be to miss whole releases."""
    rows = 20_000
    header = json.dumps({"x": {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, rows * width * 2]}})
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + rows * width * 2)  # a hole, whose contents are drawn when they are read
    model = opened(tmp_path)
    generator = torch.Generator().manual_seed(width)

    def windows(_: Any, ranges: Any) -> list[bytes]:
        drawn = torch.randn(sum(byte_range.length for byte_range in ranges) // 2, generator=generator) * 0.02
        return [drawn.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()]

    monkeypatch.setattr(untrained.FileReader, "windows", windows)
    assert [number for number in range(count) if not looks_random(sampled(model, "x"), 0.02)] == []


@pytest.mark.parametrize("keep", ["pickle", "chunks"])
@pytest.mark.parametrize("command", COMMANDS)
def test_new_weights_are_named_whatever_they_are_kept_in(keep: str, command: str, tmp_path: Path):
    for sample, change, words in (
        (MOE[0], anew(".experts."), "The experts look"),
        (MOE[1], new_head(MOE[1]), "language_model.lm_head.weight looks"),
        (UNTIED, new_head(UNTIED), "lm_head.weight looks"),
    ):
        source = changed(tmp_path / sample, sample, change)
        tensors = {key: tensor.clone() for key, tensor in load_all(source).items()}
        (source / "model.safetensors").unlink()
        KEEP[keep](source, tensors)
        configure(source, {"transformers_version": None})
        assert not list(source.glob("*.safetensors"))
        [note] = notes(source, command)
        assert note.startswith(words)


# --- What it costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["repair", "to-custom"])
def test_neither_torch_nor_numpy_is_imported(command: str, tmp_path: Path):
    source = changed(tmp_path / "hf", MOE[0], anew(".experts."), new_head(MOE[0]))
    code = """if True:
        import sys
        sys.argv[0] = "internvl-bridge"
        from internvl_bridge.cli.app import main
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        assert not {"torch", "numpy", "transformers", "safetensors"} & sys.modules.keys()
    """
    arguments = [sys.executable, "-W", "error", "-c", code, command, str(source), str(tmp_path / "output")]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count(f"looks {RANDOM}") == run.stderr.count(f"look {RANDOM}") == 1
    assert RANDOM not in run.stdout
