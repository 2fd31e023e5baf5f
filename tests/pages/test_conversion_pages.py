"""Every command that has a report saves one, with what it did or would do, tensor by tensor."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from adapters import lora_config, random_adapter, weights_of
from faults.injecting import once
from pages.reading import Element, figure, lists_in, read_page, section
from safetensors.torch import save_file
from support import DATA, copy_custom, load_all, rewrite, shard
from typer.testing import CliRunner
from wrapped import save_as_trainer

import internvl_bridge
from internvl_bridge.checkpoint.computed_tensors import ComputedTensor, Factor, Term
from internvl_bridge.cli.app import app
from internvl_bridge.convert import disk_budget
from internvl_bridge.mapping.lora.factors import Region
from internvl_bridge.mapping.plan import Plan, TensorSpec, whole
from internvl_bridge.pages import conversion_figures, saving, tensor_moves
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.header import read_header
from internvl_bridge.storage.source_shards import StoredTensor


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_custom("internlm2-300m", tmp_path / "source")


def reported(tmp_path: Path, *arguments: object, code: int = 0) -> Element:
    """The page that a command saves, which ends with ``code``."""
    place = tmp_path / "report.html"
    result = CliRunner().invoke(app, [*map(str, arguments), "--report", str(place)])
    assert result.exit_code == code, result.output
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith("Report: ") or code == 2
    return read_page(place.read_text())


def verdict(page: Element) -> str:
    [found] = [part for part in page.all("p") if part.attributes.get("id") == "verdict"]
    return f"{found.attributes['class']}: {found.text}"


def test_a_conversion_shows_where_every_tensor_went(source: Path, tmp_path: Path):
    shard(source, lambda key: key.startswith("vision_model"))
    page = reported(tmp_path, "to-hf", source, tmp_path / "hf")
    assert verdict(page).startswith("verdict is-good: Verified: read back")
    [rows] = lists_in(page)
    stored = {path.name: read_header(path).entries for path in sorted((tmp_path / "hf").glob("*.safetensors"))}
    assert {(row["Tensor"], row["File"]) for row in rows} == {
        (k, name) for name, entries in stored.items() for k in entries
    }
    for row in rows:
        entry = stored[row["File"]][row["Tensor"]]
        shape = " x ".join(map(str, entry.shape))
        assert (row["Dtype"], row["Shape"], row["Size"][0]) == (entry.dtype, shape, entry.stop - entry.start)
    found = {row["Tensor"]: row for row in rows}
    query = found["vision_tower.encoder.layer.1.attention.q_proj.weight"]
    assert (query["Made of"], query["How"]) == ("vision_model.encoder.layers.1.attn.qkv.weight[0:32]", "split")
    assert found["multi_modal_projector.linear_1.bias"]["Made of"] == "mlp1.1.bias"
    groups = section(page, "Which tensors went where").tables()[0][1:]
    assert sum(int(row[0]) for row in groups) == len(rows)
    hows = Counter(row["How"] for row in rows)
    made = figure(page, "How tensors are made")
    assert {name: int(value.split(" ")[0]) for name, value in made} == hows
    files = section(page, "Files and checksums").tables()[0][1:]
    checksums = json.loads((tmp_path / "hf" / "internvl_bridge.json").read_text())["checksums"]["files"]
    assert {row[0]: row[2] for row in files if row[2]} == checksums
    assert {row[0] for row in files} == {path.name for path in (tmp_path / "hf").iterdir()}


def test_a_conversion_shows_how_it_differs_from_the_reference(source: Path, tmp_path: Path):
    internvl_bridge.to_hf(source, tmp_path / "hf")
    page = reported(tmp_path, "to-hf", source, tmp_path / "same", "--reference", tmp_path / "hf")
    assert "tensors are equal bit for bit; L2 distance 0 over all" in section(page, "Against the reference").text
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"].add_(1))
    page = reported(tmp_path, "to-hf", source, tmp_path / "other", "--reference", tmp_path / "hf")
    assert verdict(page).startswith("verdict is-notice: Verified")
    assert verdict(page).endswith("It differs from the reference, see below.")
    config = json.loads((source / "config.json").read_text())
    config["llm_config"]["rms_norm_eps"] = 0.5
    (source / "config.json").write_text(json.dumps(config))
    page = reported(tmp_path, "to-hf", source, tmp_path / "again", "--reference", tmp_path / "hf", code=1)
    assert verdict(page).startswith("verdict is-bad")
    assert "The projector: 1 of 6 tensors differ" in section(page, "Against the reference").text
    [[_, [field, values]]] = section(page, "Fields of config.json that differ from the reference's").tables()
    assert "rms_norm_eps" in field
    assert "0.5" in values


def test_an_unverified_conversion_is_worth_a_look(source: Path, tmp_path: Path):
    page = reported(tmp_path, "to-hf", source, tmp_path / "hf", "--no-verify")
    assert verdict(page) == "verdict is-notice: Not verified: --no-verify was given."


def test_experts_that_are_stacked(tmp_path: Path):
    source = copy_custom("qwen3moe-6b", tmp_path / "moe")
    page = reported(tmp_path, "to-hf", source, tmp_path / "hf", "--experts", "fused")
    parts = figure(page, "Files of weights, before and after")[0][3].split(", ")
    components = [part.rsplit(" ", 2)[0] for part in parts]
    assert all(one != other for one, other in pairwise(components)), "neighbours are one"
    block = "language_model.model.layers.1.mlp.experts"
    found = {row["Tensor"]: row for row in lists_in(page)[0]}
    made_of = f"8 runs of {block}.*.gate_proj.weight, {block}.*.up_proj.weight"
    assert (found[f"{block}.gate_up_proj"]["Made of"], found[f"{block}.gate_up_proj"]["How"]) == (made_of, "fused")
    back = reported(tmp_path, "to-custom", tmp_path / "hf", tmp_path / "back")
    up = {row["Tensor"]: row for row in lists_in(back)[0]}[f"{block}.3.up_proj.weight"]
    assert (up["Made of"], up["How"]) == (f"{block}.gate_up_proj[3, 40:80]", "split")


def test_a_plan_is_saved_even_if_it_does_not_fit(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = reported(tmp_path, "plan", source, tmp_path / "hf", "--max-shard-size", "1MB")
    assert verdict(page).startswith("verdict is-good: Would convert")
    assert "Before: 1 file" in page.text
    monkeypatch.setattr(disk_budget, "free_bytes", lambda _: 1000)
    page = reported(tmp_path, "plan", source, tmp_path / "hf", code=2)
    assert "It does not fit on the disk" in verdict(page)
    assert verdict(page).startswith("verdict is-bad")
    assert not (tmp_path / "hf").exists()


def test_what_is_computed(source: Path, tmp_path: Path):
    trained, merged = tmp_path / "trained", tmp_path / "merged"
    save_as_trainer(source, trained)
    plan = reported(tmp_path, "merge", trained, merged, "--dry-run")
    page = reported(tmp_path, "merge", trained, merged, "--dtype", "float32")
    [row] = [row for row in lists_in(page)[0] if row["Tensor"] == "vision_model.encoder.layers.1.attn.qkv.weight"]
    factors = [f"vision_model.encoder.layers.1.attn.qkv.lora_{part}.weight" for part in "BA"]
    assert row["Made of"].startswith("itself + 2 x ")
    assert all(factor in row["Made of"] for factor in factors), row["Made of"]
    written = dict(figure(page, "How the bytes were written"))
    assert written.keys() == {"computed"}
    for found, title in ((plan, "What it would compute"), (page, "What was computed")):
        assert "Arithmetic, not a bit-exact copy" in section(found, title).text
        assert {row["How"] for row in lists_in(found)[0]} >= {"computed"}
    assert {row["Dtype"] for row in lists_in(page)[0]} == {"F32"}
    assert {row["Tensor"] for row in lists_in(page)[0]} == load_all(merged).keys()


def test_both_outputs_of_an_extraction(source: Path, tmp_path: Path):
    save_as_trainer(source, tmp_path / "trained")
    plan = reported(tmp_path, "extract", tmp_path / "trained", tmp_path / "parts", "--dry-run")
    page = reported(tmp_path, "extract", tmp_path / "trained", tmp_path / "parts")
    for found in (plan, page):
        base, adapter = lists_in(found)
        assert {row["Tensor"] for row in base} == load_all(tmp_path / "parts" / "base").keys()
        assert {row["Tensor"] for row in adapter} == load_all(tmp_path / "parts" / "adapter").keys()
    assert "The adapter: in short" in [heading.text for heading in page.all("h2")]


def test_adapters(source: Path, tmp_path: Path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    factors = random_adapter(weights_of("internlm2-300m", "custom"), lambda key: ".wo" in key or "wqkv" in key)
    save_file(factors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    (adapter / "adapter_config.json").write_text(json.dumps(lora_config(target_modules=["wo", "wqkv"])))
    plan = reported(tmp_path, "plan", adapter, tmp_path / "adapter-hf", "--base", source)
    page = reported(tmp_path, "to-hf", adapter, tmp_path / "adapter-hf", "--base", source)
    for found in (plan, page):
        [rows] = lists_in(found)
        assert {row["Tensor"] for row in rows} == load_all(tmp_path / "adapter-hf").keys()
        assert {row["Made of"].split(" + ")[0] for row in rows} <= factors.keys()
        assert "language model: attention" in found.text
    compared = reported(tmp_path, "verify", adapter, tmp_path / "adapter-hf", "--base", source)
    assert verdict(compared).startswith("verdict is-good")
    rewritten = load_all(tmp_path / "adapter-hf")
    first = min(key for key in rewritten if "lora_B" in key)
    rewritten[first] += 1
    rewritten = {key: value for key, value in rewritten.items() if ".layers.1.self_attn.o_proj" not in key}
    save_file(rewritten, tmp_path / "adapter-hf" / "adapter_model.safetensors", metadata={"format": "pt"})
    compared = reported(tmp_path, "verify", adapter, tmp_path / "adapter-hf", "--base", source, code=1)
    assert verdict(compared).startswith("verdict is-notice")
    changed = [row for row in lists_in(compared)[0] if row["Relative"]]
    assert len(changed) == 1
    assert "The language model, layer by layer and group by group" in compared.text
    assert "layers.1.self_attn.o_proj" in section(compared, "What only one side changes").text


def test_checksums(source: Path, tmp_path: Path):
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(source, hf)
    assert verdict(reported(tmp_path, "verify", "--checksums", hf)).startswith("verdict is-good: Intact")
    (hf / "config.json").write_text("{}")
    (hf / "mine.txt").write_text("")
    page = reported(tmp_path, "verify", "--checksums", hf, code=1)
    assert verdict(page).startswith("verdict is-bad: Changed or damaged")
    rows = section(page, "All files").tables()[0]
    assert rows[1] == ["config.json", "changed or damaged"]
    assert ["mine.txt", "no checksum is known"] in rows


def test_a_report_is_refused_before_the_work(source: Path, tmp_path: Path):
    for place in (tmp_path / "report.pdf", tmp_path / "hf" / "report.html"):
        result = CliRunner().invoke(app, ["to-hf", str(source), str(tmp_path / "hf"), "--report", str(place)])
        assert result.exit_code == 2
        assert "The report" in result.stderr
        assert not (tmp_path / "hf").exists()


def test_the_library_saves_reports(source: Path, tmp_path: Path):
    hf, place = tmp_path / "hf", tmp_path / "report.html"
    internvl_bridge.save_report(internvl_bridge.to_hf(source, hf), place)
    assert "Which tensors went where" in read_page(place.read_text()).text
    internvl_bridge.save_report(internvl_bridge.verify(source, hf), place, left="ours", right="theirs")
    assert read_page(place.read_text()).all("h1")[0].text == "theirs compared with ours"
    internvl_bridge.save_report(internvl_bridge.verify_checksums(hf), place)
    assert read_page(place.read_text()).all("h1")[0].text == f"Checksums of {hf}"
    with pytest.raises(internvl_bridge.OptionError, match="There is no report of 5"):
        internvl_bridge.save_report(5, place)
    save_as_trainer(source, tmp_path / "trained")
    internvl_bridge.save_report(internvl_bridge.extract(tmp_path / "trained", tmp_path / "parts"), place)
    assert len(lists_in(read_page(place.read_text()))) == 2
    adapter = tmp_path / "parts" / "adapter"
    found = internvl_bridge.verify_adapters(adapter, adapter)
    assert internvl_bridge.save_report(found, place) == place
    assert "Identical" in verdict(read_page(place.read_text()))


def test_very_many_files_are_counted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conversion_figures, "_MOST_FILES", 20)
    page = reported(tmp_path, "plan", source, tmp_path / "hf", "--max-shard-size", "1KB", "--accept", "small-shards")
    rows = figure(page, "Files of weights, before and after")
    last = [row[1] for row in rows][-1]
    assert last.startswith("and ")
    assert int(last.split(" ")[1]) + len(rows) - 2 == len({row["File"] for row in lists_in(page)[0]})


def test_a_source_of_another_layer_is_named():
    spec = TensorSpec("F32", (2,))
    plan = Plan({"layers.3.a": spec}, {key: whole("layers.3.a", spec) for key in ("layers.4.b", "layers.3.b")})
    assert tensor_moves._moved_text("layers.4.b", plan) == "layers.3.a"
    assert tensor_moves._moved_text("layers.3.b", plan) == "layers.*.a"


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_a_report_that_cannot_be_saved_takes_nothing_away(
    options: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_bytes", failing)
    command = ["to-hf", str(source), str(tmp_path / "hf"), "--report", str(tmp_path / "report.html"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "The report cannot be saved" in result.stderr
    assert internvl_bridge.verify_checksums(tmp_path / "hf").intact
    assert ("Verified" in result.stdout) is (options == [])
    if options == ["--json"]:
        document = json.loads(result.stdout)
        assert (document["error"]["kind"], document["result"]["ok"]) == ("OutputError", True)


def test_files_of_one_name_in_two_directories(source: Path, tmp_path: Path):
    part = tmp_path / "part"
    shutil.copytree(source, part)
    rewrite(part, lambda tensors: [tensors.pop(key) for key in [*tensors] if key.startswith("vision_model")])
    page = reported(tmp_path, "to-hf", part, tmp_path / "hf", "--fill-from", source)
    rows = figure(page, "Files of weights, before and after")
    assert [row[1].removesuffix(".safetensors") for row in rows if row[0].startswith("Before")] == [
        str(part / "model"),
        str(source / "model"),
    ]
    assert [row[3].split(" ")[:2] for row in rows if row[0].startswith("Before")][1] == ["vision", "tower"]


def test_the_files_of_adapters_are_files_before(source: Path, tmp_path: Path):
    save_as_trainer(source, tmp_path / "trained")
    internvl_bridge.extract(tmp_path / "trained", tmp_path / "parts")
    adapter = tmp_path / "parts" / "adapter"
    page = reported(tmp_path, "merge", tmp_path / "parts" / "base", tmp_path / "merged", "--adapter", adapter)
    rows = figure(page, "Files of weights, before and after")
    size = human_size((adapter / "adapter_model.safetensors").stat().st_size)
    assert ["adapter_model", size, f"adapter {size}"] in [row[1:] for row in rows]


def test_what_an_earlier_run_has_written_was_not_written_now(source: Path, tmp_path: Path):
    def stop(*_: object) -> None:
        raise InterruptedError

    command = ("cast", source, tmp_path / "cast", "--dtype", "float32", "--max-shard-size", "100KB")
    with pytest.raises(InterruptedError):
        internvl_bridge.cast(source, command[2], dtype="float32", max_shard_size="100KB", progress=once(stop, 0.8))
    page = reported(tmp_path, *command, "--accept", "small-shards")
    written = dict(figure(page, "How the bytes were written"))
    assert written.keys() == {"computed", "kept from an earlier run"}


def test_a_report_can_be_pickled(source: Path, tmp_path: Path):
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    again = pickle.loads(pickle.dumps(copy.deepcopy(report)))  # noqa: S301 (ours)
    internvl_bridge.save_report(again, tmp_path / "report.html")
    assert "Which tensors went where" in (tmp_path / "report.html").read_text()


def test_warnings_are_worth_a_look(tmp_path: Path):
    page = reported(tmp_path, "repair", DATA / "hf" / "qwen2-300m@state-dict", tmp_path / "repaired")
    assert verdict(page).startswith("verdict is-notice: Verified")
    assert section(page, "Warnings").text


def test_an_output_that_has_moved(source: Path, tmp_path: Path):
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    (tmp_path / "hf").rename(tmp_path / "moved")
    internvl_bridge.save_report(report, tmp_path / "report.html")
    files = section(read_page((tmp_path / "report.html").read_text()), "Files and checksums").tables()[0]
    assert {row[1] for row in files[1:]} == {"gone"}


def test_many_products_are_counted():
    factor = Factor(StoredTensor("F32", (1, 1), 0, ByteRange(Path("x"), 0, 4)), Region("b", (0, 1), (0, 1)))
    computed = ComputedTensor("k", "F32", (1, 1), (), (Term(0, 2.0, factor, factor, None),) * 5)
    assert tensor_moves._computed_text(computed) == "itself + 5 products"


def test_a_report_without_jinja(source: Path, tmp_path: Path):
    script = "import sys; sys.modules['jinja2'] = None; from internvl_bridge.__main__ import main; main()"
    command = ["plan", str(source), "--report", str(tmp_path / "report.html")]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --report needs jinja2, which is not installed. pip install jinja2\n"
