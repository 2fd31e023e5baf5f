"""Checkpoints on the hub, read through the real huggingface_hub from a small server: what goes over it, and faults."""

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters import lora_config, random_adapter, weights_of
from hub_client import hub_client
from hub_server import hub_server
from hub_state import TOKEN, Fault, Hub, files_of, repository
from safetensors.torch import save_file
from support import copy_custom, rewrite, shard
from typer.testing import CliRunner, Result

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import CheckpointError, OptionError, OutputError
from internvl_bridge.places import headers, remote_files
from internvl_bridge.places import hub as hub_module
from internvl_bridge.places.names import HubName, hub_name
from internvl_bridge.storage.publishing import partial_path

SHARDS = tuple(f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3))


_HEADER = b'{"v_head.weight":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
VALUE_HEAD = len(_HEADER).to_bytes(8, "little") + _HEADER + b"x"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = copy_custom("qwen3-300m", tmp_path_factory.mktemp("hub") / "source")
    shard(directory, lambda key: 2 if not key.startswith("language_model.") else int("layers.0." in key))
    return directory


@pytest.fixture(scope="module")
def trained(source: Path) -> Path:
    """Another commit of the same files: the headers are equal, and the numbers are not."""
    directory = Path(shutil.copytree(source, source.with_name("trained")))
    for name in SHARDS:
        path = directory / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    return directory


@pytest.fixture(scope="module")
def tied(source: Path) -> Path:
    """A head that is nearly, and not quite, a copy of the embeddings."""
    directory = copy_custom("qwen3-300m-tied", source.with_name("tied"))
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    rewrite(directory, lambda tensors: tensors.update({head: tensors[embeddings].clone()}))
    rewrite(directory, lambda tensors: tensors[head].view(-1)[-1].add_(1))
    return directory


@pytest.fixture
def hub(source: Path, trained: Path, tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    contents, others = files_of(source), files_of(trained)
    inner = {f"weights/{name}": data for name, data in contents.items()}
    repos = {
        "org/model": repository(contents, others),
        "org/inner": repository(inner),
        "org/heads": repository({**contents, "value_head.safetensors": VALUE_HEAD}),
        "org/tied": repository(files_of(tied)),
        "org/private": repository(contents, private=True),
        "org/gated": repository(contents, gated=True),
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_module, "_PAUSE", 0.001)
    with hub_server(repos) as running, hub_client(running, tmp_path / "home"):
        yield running


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def data_start(path: Path) -> int:
    """Where the data section of a safetensors file begins."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def first_commit(hub: Hub) -> str:
    return next(iter(hub.repos["org/model"].commits))


# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://org/m", HubName("org/m")),
        ("hf:/org/m", HubName("org/m")),  # what a Path makes of it
        ("org/m@v1", HubName("org/m", "v1")),
        ("hf://org/m@refs/pr/3/sub/dir", HubName("org/m", "refs/pr/3", "sub/dir")),
        ("hf://org/m@feature%2Fa", HubName("org/m", "feature/a")),
        ("./org/m", None),
        ("/org/m", None),
        ("org", None),
        ("org/m/sub", None),
        ("here/m", None),
    ],
)
def test_names(text: str, name: HubName | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_name(text) == name
    if name is not None:
        assert hub_name(str(name)) == name


# Headers alone


@pytest.mark.parametrize("command", ["inspect", "plan", "doctor"])
def test_what_is_looked_at_is_read_by_ranges(hub: Hub, source: Path, command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "_FIRST", 64)
    found = run(command, "hf://org/model", "--json")
    assert found.exit_code == 0, found.stderr
    answer = json.loads(found.stdout)
    here = json.loads(run(command, source, "--json").stdout)["result"]
    place = answer["place"]
    assert place["place"] == f"hf://org/model@{hub.repos['org/model'].branches['main']}"
    starts = {name: data_start(source / name) for name in SHARDS}
    assert {name: hub.sent(name) for name in SHARDS} == starts
    small = sum(path.stat().st_size for path in source.iterdir() if path.name not in SHARDS)
    assert place["bytes"] <= sum(starts.values()) + small
    if command == "inspect":
        assert {**answer["result"], "path": ""} == {**here, "path": ""}
    assert "internvl-bridge-" not in found.stdout


def test_workers_stream_a_share_each(hub: Hub, expected: Path):
    for worker in ("1/2", "2/2"):
        found = run("to-hf", f"hf://org/model@{first_commit(hub)}", "output", "--stream", "--worker", worker)
        assert found.exit_code == 0, found.stderr
    sent = {name: hub.sent(name) for name in SHARDS}
    found = run("finish", "output", "--json", "--report", "report.html")
    assert found.exit_code == 0
    assert "/internvl-bridge-" not in found.stdout + Path("report.html").read_text()
    assert json.loads(found.stdout)["place"]["place"] == f"hf://org/model@{first_commit(hub)}"
    assert all(hub.sent(name) < sent[name] + 100_000 for name in SHARDS)  # headers alone
    assert all((expected / name).read_bytes() == Path("output", name).read_bytes() for name in SHARDS)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("command", [["plan"], ["to-hf", "--stream"], ["cast", "--dtype", "float32"]])
def test_reports_name_the_place(command: list[str]):
    output = [] if command == ["plan"] else ["output"]
    found = run(command[0], "hf://org/model", *output, *command[1:], "--json", "--report", "report.html")
    assert found.exit_code == 0, found.stderr
    page = Path("report.html").read_text()
    assert "hf://org/model" in page
    assert "/internvl-bridge-" not in page
    assert json.loads(found.stdout)["place"]["place"].startswith("hf://org/model@")


@pytest.mark.usefixtures("hub")
def test_a_folder_and_a_revision():
    found = run("inspect", "hf://org/inner@main/weights")
    assert found.exit_code == 0
    assert "hf://org/inner@main/weights" in found.stdout


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("org/nothing", "not a directory here, and not a repository on the hub"),
        ("hf://org/model@nothing", "has no revision nothing"),
        ("hf://org/private", "or a private one"),
        ("hf://org/gated", "is gated"),
        ("hf://org/model/nothing", "has no files"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "to-hf"])
@pytest.mark.usefixtures("hub")
def test_what_cannot_be_read_is_refused(place: str, reason: str, command: str):
    found = run(command, place, *(["output"] if command == "to-hf" else []))
    assert found.exit_code == 2
    assert found.exception is None or isinstance(found.exception, SystemExit)
    assert reason in " ".join(found.stderr.split())
    assert not Path("output").exists()


@pytest.mark.usefixtures("hub")
def test_the_functions_of_the_library_take_places(source: Path):
    assert internvl_bridge.inspect("hf://org/model").path == "hf://org/model"
    assert internvl_bridge.diagnose("hf://org/model@main").path == "hf://org/model@main"
    assert internvl_bridge.verify("hf://org/inner/weights", source).identical
    with pytest.raises(CheckpointError, match="no checksums"):
        internvl_bridge.verify_checksums("hf://org/model")


# Conversions


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> Path:
    internvl_bridge.to_hf(source, tmp_path / "expected")
    return tmp_path / "expected"


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversion_is_that_of_the_directory(hub: Hub, expected: Path, stream: bool):
    commit = first_commit(hub)
    report = internvl_bridge.to_hf(f"org/model@{commit}", "output", stream=stream)
    assert report.verification is not None
    names = {path.name for path in expected.iterdir()}
    assert names == {path.name for path in Path("output").iterdir()}
    for name in names - {"internvl_bridge.json"}:
        assert (Path("output") / name).read_bytes() == (expected / name).read_bytes()
    record = json.loads((Path("output") / "internvl_bridge.json").read_text())["conversion"]
    assert record["source"] == f"hf://org/model@{commit}"
    assert internvl_bridge.verify_checksums("output").intact
    if stream:
        assert not (hub_cache := list(Path("home").rglob("*.safetensors"))), hub_cache


def test_only_the_files_that_are_needed_are_downloaded(hub: Hub, source: Path):
    contents = files_of(source)
    hub.repos["org/extra"] = repository(
        {**contents, "model.gguf": b"gguf", "pytorch_model.bin": b"x", "sub/a.json": b"{}"}
    )
    internvl_bridge.to_hf("org/extra", "output")
    assert not hub.asked("gguf")
    assert not hub.sent("pytorch_model.bin")


def test_a_branch_that_moves_between_headers_and_bodies_changes_nothing(hub: Hub, expected: Path):
    commit = first_commit(hub)
    hub.move("main", commit, repo="org/model")
    other = next(name for name in hub.repos["org/model"].commits if name != commit)
    moving = Fault(r"/resolve/.*safetensors", nth=4, call=lambda hub: hub.move("main", other, repo="org/model"))
    hub.faults.append(moving)
    internvl_bridge.to_hf("hf://org/model@main", "output", stream=True)
    assert hub.repos["org/model"].branches["main"] == other
    assert internvl_bridge.verify("output", expected).identical


@pytest.mark.parametrize(
    "fault",
    [
        {"cut": 100, "times": 1},
        {"short": 100, "times": 1},
        {"status": 503, "times": 2},
        {"whole": True, "times": 1},
        {"headers": {"Content-Range": "bytes 0-9/10"}, "times": 1},
        {"close": True, "times": 1},
    ],
    ids=str,
)
def test_what_breaks_off_is_asked_for_again(hub: Hub, expected: Path, fault: dict):
    hub.faults.append(Fault(r"safetensors", method="GET", nth=5, **fault))
    internvl_bridge.to_hf(f"hf://org/model@{first_commit(hub)}", "output", stream=True)
    assert internvl_bridge.verify("output", expected).identical


@pytest.mark.parametrize("fault", [{"cut": 100}, {"short": 100}, *({"status": n} for n in (404, 401, 500))], ids=str)
def test_what_stays_broken_is_refused_and_goes_on_later(hub: Hub, expected: Path, fault: dict):
    place = f"hf://org/model@{first_commit(hub)}"
    hub.faults.append(Fault(rf"{SHARDS[2]}", method="GET", nth=3, times=10**6, **fault))
    with pytest.raises(CheckpointError) as caught:
        internvl_bridge.to_hf(place, "output", stream=True, workers=1)
    assert "internvl-bridge-" not in str(caught.value)  # the directory that stands for the place
    assert not Path("output").exists()
    hub.faults.clear()
    sent = hub.sent(SHARDS[0])
    report = internvl_bridge.to_hf(place, "output", stream=True, workers=1)
    assert report.kept == SHARDS[:2]
    assert hub.sent(SHARDS[0]) - sent < 70_000  # its header
    assert internvl_bridge.verify("output", expected).identical


def test_another_commit_does_not_go_on(hub: Hub):
    first, second = hub.repos["org/model"].commits
    hub.faults.append(Fault(rf"{SHARDS[2]}", method="GET", nth=3, times=10**6, status=404))
    with pytest.raises(CheckpointError):
        internvl_bridge.to_hf(f"hf://org/model@{first}", "output", stream=True, workers=1)
    hub.faults.clear()
    with pytest.raises(OutputError, match="from another directory"):
        internvl_bridge.to_hf(f"hf://org/model@{second}", "output", stream=True)


def test_a_damaged_finished_file_is_read_again(hub: Hub, expected: Path):
    place = f"hf://org/model@{first_commit(hub)}"
    hub.faults.append(Fault(rf"{SHARDS[2]}", method="GET", nth=3, times=10**6, status=404))
    with pytest.raises(CheckpointError):
        internvl_bridge.to_hf(place, "output", stream=True, workers=1)
    hub.faults.clear()
    path = partial_path(Path("output")) / "files" / SHARDS[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = internvl_bridge.to_hf(place, "output", stream=True)
    assert report.kept == (SHARDS[1],)
    assert internvl_bridge.verify("output", expected).identical


@pytest.mark.usefixtures("hub")
def test_a_tied_head_is_compared_over_the_wire(tied: Path):
    """Of two tensors that config.json calls one, only all of their bits show whether they are."""
    internvl_bridge.to_hf(tied, "expected")
    internvl_bridge.to_hf("hf://org/tied", "output", stream=True)
    assert internvl_bridge.verify("output", "expected").identical


@pytest.mark.parametrize("options", [{"link": "hard"}, {"consume": True}])
@pytest.mark.usefixtures("hub")
def test_options_that_need_a_copy_are_refused(options: dict):
    with pytest.raises(OptionError, match="--stream"):
        internvl_bridge.to_hf("hf://org/model", "output", stream=True, **options)


def test_a_directory_is_not_streamed(source: Path, tmp_path: Path):
    with pytest.raises(OptionError, match="reads from the hub"):
        internvl_bridge.to_hf(source, tmp_path / "output", stream=True)


def test_a_download_that_broke_off_goes_on(hub: Hub, source: Path, expected: Path):
    hub.faults.append(Fault(SHARDS[1], method="GET", cut=1000, times=10**6))
    with pytest.raises(CheckpointError):
        internvl_bridge.to_hf(f"org/model@{first_commit(hub)}", "output")
    hub.faults.clear()
    sent = hub.sent(SHARDS[0])
    internvl_bridge.to_hf(f"org/model@{first_commit(hub)}", "output")
    assert hub.sent(SHARDS[0]) == sent == (source / SHARDS[0]).stat().st_size
    assert internvl_bridge.verify("output", expected).identical


def test_a_cache_is_taken_when_there_is_no_network(hub: Hub):
    internvl_bridge.to_hf("org/model", "first")
    hub.faults.append(Fault(r".", times=10**6, status=503))
    internvl_bridge.to_hf("org/model", "second")
    assert internvl_bridge.verify("first", "second").identical


@pytest.mark.usefixtures("hub")
def test_ranges_are_asked_for_in_large_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote_files, "_AT_A_TIME", 10_000)
    internvl_bridge.to_hf("hf://org/model", "output", stream=True)
    assert internvl_bridge.verify_checksums("output").intact


def test_a_local_conversion_imports_nothing_of_it(source: Path, tmp_path: Path):
    code = "import internvl_bridge, sys; internvl_bridge.to_hf(*sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, source, tmp_path / "output"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "internvl_bridge.places.names" in told.split()
    assert not {"huggingface_hub", "internvl_bridge.places.hub"} & {*told.split()}


def test_a_folder_is_converted_like_a_repository(hub: Hub, expected: Path):
    internvl_bridge.to_hf("hf://org/inner/weights", "output")
    assert internvl_bridge.verify("output", expected).identical
    assert not [request for request in hub.requests if "extra" in request.path]


@pytest.mark.usefixtures("hub")
def test_a_file_that_is_no_part_of_the_model_is_left_alone(expected: Path):
    found = run("inspect", "hf://org/heads")
    assert found.exit_code == 0, found.stderr
    internvl_bridge.to_hf("hf://org/heads", "output", stream=True)
    assert internvl_bridge.verify("output", expected).identical


def test_long_headers_are_read_whole(hub: Hub, expected: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "_FIRST", 100)
    internvl_bridge.to_hf(f"hf://org/model@{first_commit(hub)}", "output", stream=True)
    assert internvl_bridge.verify("output", expected).identical


def test_a_file_that_is_not_as_long_as_its_header_says_is_refused(hub: Hub, source: Path):
    contents = files_of(source)
    cut = {name: data.read_bytes() if isinstance(data, Path) else data for name, data in contents.items()}
    hub.repos["org/short"] = repository({**cut, SHARDS[1]: cut[SHARDS[1]][:-1]})
    found = run("inspect", "hf://org/short")
    assert found.exit_code == 2
    assert SHARDS[1] in found.stderr


@pytest.mark.usefixtures("hub")
def test_what_is_not_looked_at_is_not_asserted():
    found = run("plan", "hf://org/tied")
    assert "was not looked at" in found.stdout
    assert "bit for bit: " not in found.stdout


@pytest.mark.parametrize("stream", [False, True])
def test_the_checksums_of_the_source_count(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, stream: bool):
    monkeypatch.chdir(tmp_path)
    internvl_bridge.to_hf(source, "made")
    path = Path("made") / SHARDS[0]
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    with hub_server({"org/made": repository(files_of(Path("made")))}) as hub, hub_client(hub, tmp_path / "home"):
        try:
            report = internvl_bridge.to_custom("hf://org/made", "output", stream=stream)
        except CheckpointError as error:
            assert "do not have the checksum" in error.reason  # noqa: PT017 (or a warning, if the time shows nothing)
        else:
            assert any("do not have the checksums" in warning for warning in report.warnings)


def test_the_base_of_an_adapter_may_be_on_the_hub(hub: Hub, source: Path):
    Path("lora").mkdir()
    factors = random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4)
    save_file(factors, "lora/adapter_model.safetensors")
    Path("lora/adapter_config.json").write_text(json.dumps(lora_config(r=4)))
    internvl_bridge.to_hf("lora", "output", base="hf://org/model")
    internvl_bridge.to_hf("lora", "expected", base=source)
    assert internvl_bridge.verify_adapters("output", "expected", base=source).identical
    assert not hub.sent(SHARDS[0])


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b"[]", b"null"])
def test_an_answer_that_makes_no_sense_is_refused(hub: Hub, answer: bytes, monkeypatch: pytest.MonkeyPatch):
    def nonsense(*_: object, **__: object):
        return json.loads(answer)["sha"]

    monkeypatch.setattr(hub_module.HfApi, "model_info", nonsense)
    found = run("inspect", "hf://org/model")
    assert found.exit_code == 2
    assert "defect" not in found.stderr
    assert hub.requests == []


def test_no_address_is_in_a_traceback(hub: Hub):
    hub.faults.append(Fault(SHARDS[0], times=10**6, status=403))
    with pytest.raises(CheckpointError) as caught:
        internvl_bridge.to_hf("hf://org/model", "output", stream=True)
    told = "".join(traceback.format_exception(caught.value))
    assert "Signature" not in told
    assert hub.endpoint not in told


# Tokens


def test_no_token_is_ever_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.chdir(tmp_path)
    repos = {"org/private": repository(files_of(source), private=True)}
    with hub_server(repos) as hub, hub_client(hub, tmp_path / "home", token=TOKEN):
        outcomes = [
            run("inspect", "hf://org/private", "--json"),
            run("to-hf", "hf://org/private", "output", "--stream", "--report", "page.html", "--verbose"),
        ]
        hub.faults.append(Fault(r"/resolve/", times=10**6, status=403))
        outcomes.append(run("to-hf", "hf://org/private", "other", "--stream"))
        assert [outcome.exit_code for outcome in outcomes] == [0, 0, 2]
        assert {request.token for request in hub.requests if request.origin == "store"} <= {None}
    told = "".join(outcome.output for outcome in outcomes) + caplog.text
    files = [path for place in ("output", ".") for path in Path(place).glob("*") if path.is_file()]
    told += "".join(path.read_bytes().decode(errors="replace") for path in files if path.suffix in {".json", ".html"})
    assert TOKEN not in told
    assert "Signature" not in told
