"""Several processes make one output, each a share of it, and another one finishes it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from adapters import lora_config, random_adapter, weights_of
from safetensors.torch import save_file
from support import edit_json, files_of, make_synthetic
from typer.testing import CliRunner, Result

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import InUseError, OptionError, OutputError
from internvl_bridge.storage import worker_space as worker_space_module
from internvl_bridge.storage.abandoned import abandoned_outputs, remove_abandoned
from internvl_bridge.storage.held_directory import HeldDirectory
from internvl_bridge.storage.journal import JOURNAL, Identity, read_journal
from internvl_bridge.storage.publishing import finished_files, publishing
from internvl_bridge.storage.worker_space import worker_space

BRIDGE = (sys.executable, "-m", "internvl_bridge")
SMALL = ("--max-shard-size", "60KB", "--accept", "small-shards", "--quiet")
IDENTITY = Identity("1", {}, {}, "plan")
LONGEST = 60

# Ends itself as a machine does that loses its power, after two files.
DYING = """
import os, signal
from internvl_bridge.cli.app import main
from internvl_bridge.storage.journal import Journal
record = Journal.record
def recording(journal, *names, **options):
    record(journal, *names, **options)
    if len(journal.finished) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.record = recording
main()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("workers") / "source")


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, bytes]:
    output = source.with_name("expected")
    assert run("to-hf", source, output, *SMALL).exit_code == 0
    return files_of(output)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def work(source: Path, output: Path) -> Callable[..., Result]:
    """Work as a worker, with more options."""
    return lambda worker, *options: run("to-hf", source, output, *SMALL, "--worker", worker, *options)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_four_at_a_time_of_which_one_is_killed(source: Path, output: Path, expected: dict[str, bytes]):
    command = ["to-hf", str(source), str(output), *SMALL, "--workers", "1", "--worker"]
    with ExitStack() as stack:
        starts = [[*BRIDGE], [sys.executable, "-c", DYING], [*BRIDGE], [*BRIDGE]]
        processes = [
            stack.enter_context(subprocess.Popen([*start, *command, f"{number}/4"], stderr=subprocess.PIPE, text=True))
            for number, start in enumerate(starts, start=1)
        ]
        ends = [(process.communicate(timeout=LONGEST)[1], process.returncode) for process in processes]
    assert ends == [("", 0), ("", -signal.SIGKILL), ("", 0), ("", 0)]
    assert not output.exists()
    refused = run("finish", output)
    assert refused.exit_code == 2
    assert "3 of 21 files of weights are missing" in refused.stderr
    assert "They are the share of worker 2/4." in refused.stderr
    again = f"internvl-bridge to-hf {source} {output} --max-shard-size 60KB --accept small-shards --worker 2/4"
    assert f"Start it again, for instance: {again} Then: internvl-bridge finish {output}" in refused.stderr
    assert "2 of them were there from an earlier run" in run(*again.split()[1:]).stdout
    report = internvl_bridge.finish(output)
    assert (report.by_workers, len(report.kept)) == (True, 21)
    assert files_of(output) == expected
    assert [path.name for path in output.parent.iterdir()] == ["output"]


def test_a_plain_command_takes_over_what_workers_have_finished(
    work: Callable[..., Result], source: Path, output: Path, expected: dict[str, bytes]
):
    assert work("2/3").exit_code == 0
    assert len(internvl_bridge.to_hf(source, output, max_shard_size="60KB", accept=["small-shards"]).kept) == 7
    assert files_of(output) == expected


def test_other_workers_go_on(work: Callable[..., Result], output: Path, expected: dict[str, bytes]):
    assert work("1/2").exit_code == 0
    told = [work(f"{number}/3", "--json").stdout for number in (1, 2, 3)]
    assert all('"elsewhere": [\n' in text for text in told)
    assert '"missing": []' in told[-1]
    assert run("finish", output).exit_code == 0
    assert files_of(output) == expected


@pytest.mark.parametrize("readers", [nullcontext, ThreadPoolExecutor], ids=["here", "elsewhere"])
def test_what_was_damaged_after_it_was_written_is_made_again(
    work: Callable[..., Result],
    output: Path,
    expected: dict[str, bytes],
    readers: Callable[[], Any],
):
    assert work("1/1").exit_code == 0
    worker = output.parent / "output.partial" / "worker-1-of-1"
    assert len(read_journal(worker / JOURNAL).checksums) == 21
    damaged = worker / "files" / "model-00003-of-00021.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with readers() as executor:
        assert len(internvl_bridge.finish(output, executor=executor).kept) == 20
    assert files_of(output) == expected


def change_unseen(source: Path) -> None:
    """Change the last bytes of a source, which keeps its sizes and times."""
    for path in source.glob("*.safetensors"):
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"evil")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_source_that_was_touched_meanwhile_is_compared_with_what_workers_made(source: Path, output: Path):
    ours = Path(shutil.copytree(source, output.with_name("ours")))
    for worker in ("1/2", "2/2"):
        assert run("to-hf", ours, output, *SMALL, "--worker", worker).exit_code == 0
    change_unseen(ours)
    report = internvl_bridge.finish(output)
    assert (report.by_workers, len(report.kept)) == (False, 18)
    assert internvl_bridge.verify(ours, output).identical


def test_taking_over_goes_on_where_it_was_stopped(
    work: Callable[..., Result], output: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    assert work("1/1").exit_code == 0
    move, moves = HeldDirectory.move, iter(range(99))

    def stopped(directory: HeldDirectory, name: str, place: HeldDirectory, new: str) -> None:
        if name.endswith(".safetensors") and next(moves) == 3:
            raise KeyboardInterrupt
        move(directory, name, place, new)

    monkeypatch.setattr(HeldDirectory, "move", stopped)
    with pytest.raises(KeyboardInterrupt):
        internvl_bridge.finish(output)
    monkeypatch.undo()
    assert not output.exists()
    assert len(internvl_bridge.finish(output).kept) == 21
    assert files_of(output) == expected


def test_nobody_publishes_while_a_worker_works(output: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_space_module, "_PATIENCE", 0)
    with worker_space(output, IDENTITY, "worker-1-of-2"), worker_space(output, IDENTITY, "worker-2-of-2"):
        with pytest.raises(InUseError, match="Another conversion is writing to"), publishing(output, IDENTITY):
            pytest.fail("a worker works")
        with (
            pytest.raises(InUseError, match=r"Another conversion is writing to .*worker-1-of-2"),
            worker_space(output, IDENTITY, "worker-1-of-2"),
        ):
            pytest.fail("the same worker works")
        with pytest.raises(InUseError, match=r"A run still writes to .* internvl-bridge finish"):
            internvl_bridge.finish(output)
    with (
        publishing(output, IDENTITY),
        pytest.raises(InUseError, match="Another conversion"),
        worker_space(output, IDENTITY, "worker-1-of-2"),
    ):
        pytest.fail("a run publishes")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_many_begin_at_the_same_time(output: Path):
    """Each in a process of its own, as a scheduler starts them."""
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            try:
                with worker_space(output, IDENTITY, f"worker-{number + 1}-of-8") as workspace:
                    (workspace.files / f"{number}").touch()
                    workspace.journal.record(f"{number}")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    partial = output.with_name("output.partial")
    assert (partial / JOURNAL).read_bytes().count(b'"program"') == 1
    with publishing(output, IDENTITY) as workspace:
        assert sorted(workspace.journal.finished) == [*map(str, range(8))]


def test_a_worker_that_finishes_nothing_leaves_nothing(output: Path):
    with pytest.raises(RuntimeError), worker_space(output, IDENTITY, "worker-1-of-2"):
        raise RuntimeError
    assert not [*output.parent.iterdir()]


@pytest.mark.parametrize("inside", ["thesis.txt", "files"])
def test_a_directory_of_somebody_else_is_left_alone(work: Callable[..., Result], output: Path, inside: str):
    partial = output.with_name("output.partial")
    (partial / inside).mkdir(parents=True)
    partial.chmod(0o755)
    for _ in range(2):
        for found in (work("1/2"), run("finish", output)):
            assert found.exit_code == 2
            assert "is not an unfinished output of this program" in found.stderr
    assert [path.name for path in partial.rglob("*")] == [inside]
    assert partial.stat().st_mode & 0o777 == 0o755


def test_a_worker_that_comes_too_late_is_told(output: Path):
    output.mkdir()
    (output / "config.json").touch()
    with pytest.raises(OutputError, match="exists and is not an empty directory"), worker_space(output, IDENTITY, "w"):
        pytest.fail("the output was published meanwhile")
    assert [path.name for path in output.parent.iterdir()] == ["output"]
    with worker_space(output, IDENTITY, "worker-1-of-2", overwrite=True):
        pass


def test_what_workers_have_finished_is_not_cleaned_up_unseen(output: Path):
    with worker_space(output, IDENTITY, "worker-1-of-2") as workspace:
        os.utime(output.with_name("output.partial") / JOURNAL, (1, 1))
        assert abandoned_outputs(output.parent) == []
    (before,) = abandoned_outputs(output.parent)
    assert (before.finished, before.changed > 1) == (0, True)
    with worker_space(output, IDENTITY, "worker-1-of-2") as workspace:
        (workspace.files / "0").touch()
        workspace.journal.record("0")
    with pytest.raises(OutputError, match="has changed meanwhile"):
        remove_abandoned(before)
    (after,) = abandoned_outputs(output.parent)
    assert after.finished == 1
    remove_abandoned(after)
    assert not [*output.parent.iterdir()]


def test_a_worker_that_gives_up_disturbs_no_other(output: Path, monkeypatch: pytest.MonkeyPatch):
    """Its directory goes while others look."""
    with worker_space(output, IDENTITY, "worker-1-of-2"):
        gone = output.with_name("output.partial") / "worker-2-of-2"
        gone.mkdir()
        has_directory = HeldDirectory.has_directory

        def going(directory: HeldDirectory, name: str) -> bool:
            found = has_directory(directory, name)
            if name == gone.name:
                gone.rmdir()
            return found

        monkeypatch.setattr(HeldDirectory, "has_directory", going)
        assert finished_files(output, IDENTITY) == []


def test_another_conversion_does_not_go_on(work: Callable[..., Result], source: Path, output: Path, tmp_path: Path):
    assert work("1/2").exit_code == 0
    refused = work("2/2", "--layout", "l2").stderr
    assert "with --layout l1, and this one has --layout l2" in refused
    assert f"or remove {output}.partial when no worker runs, so that all start over." in refused
    changed = Path(shutil.copytree(source, tmp_path / "changed"))
    edit_json(changed / "config.json", lambda config: config.update(force_image_size=224))
    found = run("to-hf", changed, output, *SMALL, "--worker", "2/2")
    assert (found.exit_code, "was begun from another directory" in found.stderr) == (2, True)
    assert read_journal(output.with_name("output.partial") / JOURNAL).identity["options"]["layout"] == "l1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "is not a name for a directory"),
        ("-dash", "to-hf {source} ./-dash --max-shard-size 60KB --accept small-shards --worker 2/2"),
        ("-dash.partial", "is where ./-dash is collected"),
    ],
)
def test_what_to_type_can_be_typed(
    name: str, reason: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert run("to-hf", source, "./-dash", *SMALL, "--worker", "1/2").exit_code == 0
    found = run("finish", f"./{name}")
    assert found.exit_code == 2
    assert reason.format(source=source).replace("./-dash is", "-dash is") in found.stderr


def test_an_option_that_is_a_link_is_recorded_alike(source: Path, output: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(source)
    internvl_bridge.to_hf(source, tmp_path / "plain", config=tmp_path / "link")
    assert run("to-hf", source, output, "--config", tmp_path / "link", "--worker", "1/1").exit_code == 0
    internvl_bridge.finish(output)
    assert (output / "internvl_bridge.json").read_bytes() == (tmp_path / "plain" / "internvl_bridge.json").read_bytes()


def test_there_may_be_nothing_to_finish(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OutputError, match=r"output.partial is not there. Start the workers first"):
        internvl_bridge.finish(output)
    monkeypatch.setattr("internvl_bridge.convert.run.check_inventory", stop)
    with pytest.raises(KeyboardInterrupt):
        internvl_bridge.to_hf(source, output)
    with pytest.raises(OutputError, match=f"not what workers have left. It goes on with: .*to-hf {source} {output}"):
        internvl_bridge.finish(output)
    monkeypatch.undo()
    internvl_bridge.to_hf(source, output)
    with pytest.raises(OutputError, match=r"nothing to finish: .* is complete. See internvl-bridge inspect"):
        internvl_bridge.finish(output)


def test_a_journal_of_somebody_else_is_not_followed(work: Callable[..., Result], output: Path):
    assert work("1/1").exit_code == 0
    partial = output.with_name("output.partial")
    first = json.loads((partial / JOURNAL).read_text().splitlines()[0])
    (partial / "worker-1-of-0").mkdir()
    (partial / "worker-2-of-2" / "files").mkdir(parents=True)
    os.mkfifo(partial / "worker-2-of-2" / JOURNAL)
    for change in ({"command": "merge"}, {"command": [1]}, {"config": ["x"]}, {"layout": 3}, {"max_shard_size": {}}):
        (partial / JOURNAL).write_text(json.dumps({**first, "options": {**first["options"], **change}}) + "\n")
        with pytest.raises(OutputError, match="is not an unfinished output of this program"):
            internvl_bridge.finish(output)
    (partial / JOURNAL).write_text(json.dumps({**first, "source": {"directory": 3}}) + "\n")
    with pytest.raises(OutputError, match="is not an unfinished output of this program"):
        internvl_bridge.finish(output)
    (partial / JOURNAL).write_text(json.dumps(first) + "\n")
    with (partial / "worker-1-of-1" / JOURNAL).open("a") as file:
        file.write(json.dumps({"remembered": {"accepted": [[], 3, "nothing"], "streamed": []}}) + "\n")
    assert internvl_bridge.finish(output).verification.identical


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--consume", "--yes"], "--consume does not go with --worker"),
        (["--restart"], "--restart would remove what other workers have finished"),
        (["--ray", "local"], "--ray has workers of its own"),
        (["--link", "hard", "--read-links"], "--read-links does not go with --worker"),
        (["--push-to-hub", "me/model"], "--push-to-hub is for the whole output"),
        (["--report", "report.html"], "--report is for the whole output"),
    ],
)
def test_what_does_not_go_together_is_refused(
    work: Callable[..., Result], output: Path, flags: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("internvl_bridge.cli.commands.check_push", lambda *_: None)
    found = work("1/2", *flags)
    assert found.exit_code == 2
    assert reason in found.stderr
    assert not [*output.parent.iterdir()]


def test_what_a_worker_says(source: Path, output: Path):
    """What it would write, that it has nothing to write, and what to type then."""
    output.mkdir()
    (output / "config.json").write_text("{}")
    flags = ["--overwrite", "--worker", "4/4"]
    assert (
        "Worker 4/4 would write 0 of 3 file(s) of weights, 0 B."
        in run("to-hf", source, output, "--dry-run", *flags).stdout
    )
    told = run("to-hf", source, output, *flags).stdout
    assert "Worker 4/4 has nothing to write: there are 3 file(s) of weights" in told
    assert f"When all are: internvl-bridge finish {output} --overwrite" in told
    assert "0 file(s) of weights are finished" in run("clean", output.parent).stdout
    assert run("to-hf", source, output, "--overwrite", "--worker", "1/1").exit_code == 0
    assert f"Goes on with: internvl-bridge finish {output}\n" in run("clean", output.parent).stdout
    assert (
        "when no worker runs, so that all start over"
        in run("to-hf", source, output, "--layout", "l2", "--dry-run", "--overwrite").stderr
    )


def test_an_adapter_has_no_workers(source: Path, tmp_path: Path):
    (tmp_path / "lora").mkdir()
    save_file(
        random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4),
        tmp_path / "lora" / "adapter_model.safetensors",
    )
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(lora_config(r=4)))
    found = run("to-hf", tmp_path / "lora", tmp_path / "output", "--worker", "1/2", "--base", source)
    assert (found.exit_code, "An adapter is one file" in found.stderr) == (2, True)
    with ThreadPoolExecutor() as executor, pytest.raises(OptionError, match=r"one process writes. Leave out executor"):
        internvl_bridge.to_hf(tmp_path / "lora", tmp_path / "output", base=source, executor=executor)


def test_ray_may_not_be_installed(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    found = run("to-hf", source, output, "--ray", "local")
    assert (found.exit_code, found.stderr) == (
        2,
        "Error: --ray needs Ray, which is not installed. pip install 'internvl-bridge[ray]'\n",
    )


def test_files_that_are_links_are_nobodys_share(source: Path, output: Path):
    internvl_bridge.to_hf(source, output.with_name("whole"), link="hard")
    for number in (1, 2):
        found = run("to-hf", source, output, "--link", "hard", "--worker", f"{number}/2", "--json")
        assert '"missing": []' in found.stdout or number == 1
    assert len(internvl_bridge.finish(output).linked.files) == 1
    assert files_of(output) == files_of(output.with_name("whole"))
