"""The command line as people use it: words, exit codes, progress, interruption."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import DATA, copy_custom, load_all, rewrite
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.verification import directories

Custom = Callable[[str], Path]
BRIDGE = [sys.executable, "-m", "internvl_bridge"]


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def modules_after(*arguments: object) -> set[str]:
    """Run a command in a new interpreter; the top-level modules that it had imported at its end."""
    script = (
        "import sys\nfrom internvl_bridge.cli.app import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "transformers", "numpy", "safetensors"}


def test_help_imports_nothing_heavy():
    assert modules_after("--help").isdisjoint(HEAVY)
    assert modules_after("to-hf", "--help").isdisjoint(HEAVY)


def test_a_verified_conversion_imports_nothing_heavy(custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    assert modules_after("to-hf", source, tmp_path / "hf").isdisjoint(HEAVY)
    assert modules_after("to-custom", tmp_path / "hf", tmp_path / "back").isdisjoint(HEAVY)
    assert modules_after("verify", source, tmp_path / "hf").isdisjoint(HEAVY)
    assert modules_after("inspect", source).isdisjoint(HEAVY)


def test_the_probe_for_heavy_modules_can_fail(custom: Custom, tmp_path: Path):
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(custom("qwen2-300m"), hf)
    reference = copy_custom("qwen2-300m", tmp_path / "reference")
    rewrite(reference, lambda tensors: tensors["mlp1.0.bias"].add_(1))
    assert "torch" in modules_after("to-custom", hf, tmp_path / "back", "--reference", reference)


@pytest.mark.parametrize("command", ["to-hf", "to-custom", "verify", "inspect"])
def test_every_command_explains_itself(command: str):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    assert command in invoke("--help").stdout


def test_the_exit_codes_are_in_the_help():
    words = " ".join(invoke("--help").stdout.split())
    assert "0 done" in words
    assert "1 differs or something is wrong, 2 bad input or usage, 130 interrupted" in words


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version(option: str):
    assert invoke(option).stdout == f"internvl-bridge {internvl_bridge.__version__}\n"


@pytest.mark.parametrize("command", [[], ["to-hf"], ["to-custom"], ["repair"], ["plan"], ["verify"], ["inspect"]])
def test_a_flag_has_no_value_in_the_help(command: list[str]):
    assert "bool" not in invoke(*command, "--help").stdout


@pytest.mark.parametrize("command", ["to-hf", "to-custom", "repair", "plan", "verify", "inspect"])
def test_help_is_readable_in_a_narrow_terminal(command: str):
    text = CliRunner(env={"COLUMNS": "60"}).invoke(app, [command, "--help"]).stdout
    assert max(map(len, text.splitlines())) <= 60
    assert "\u2026" not in text  # what rich puts where it cuts a word off
    assert f"Example: internvl-bridge {command} " in text


def test_help_has_a_short_option():
    assert invoke("-h").stdout == invoke("--help").stdout
    assert invoke("to-hf", "-h").stdout == invoke("to-hf", "--help").stdout


def test_what_cannot_be_compared_is_not_called_equal(custom: Custom, tmp_path: Path):
    source, other = custom("qwen2-300m"), copy_custom("qwen2-300m", tmp_path / "other")
    rewrite(other, lambda tensors: tensors.update({key: tensor.float() for key, tensor in tensors.items()}))
    result = invoke("verify", source, other)
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "Different: no tensor could be compared: 65 have another dtype or shape, 0 are missing"
    )


def test_choices_may_be_in_any_case(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    for output, layout in (("capital", "L2"), ("small", "l2")):
        assert invoke("to-hf", source, tmp_path / output, "--layout", layout, "--order", "Name").exit_code == 0
    assert load_all(tmp_path / "capital").keys() == load_all(tmp_path / "small").keys()


def test_a_conversion_says_what_it_did(custom: Custom, tmp_path: Path):
    result = invoke("to-hf", custom("qwen3-300m"), tmp_path / "hf")
    assert result.exit_code == 0
    assert "71 tensors" in result.stdout
    assert "L2 distance 0 for each of the 71 tensors, 0 over all" in result.stdout
    assert result.stderr == ""


def test_no_verify_is_admitted(custom: Custom, tmp_path: Path):
    assert "no (--no-verify)" in invoke("to-hf", custom("qwen3-300m"), tmp_path / "hf", "--no-verify").stdout


def test_verbose_lists_every_tensor(custom: Custom, tmp_path: Path):
    result = invoke("to-hf", custom("qwen3-300m"), tmp_path / "hf", "-v")
    assert result.stdout.count("  L2 0: ") == 71


def test_quiet_says_nothing(custom: Custom, tmp_path: Path):
    result = invoke("to-hf", custom("qwen3-300m"), tmp_path / "hf", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_json_reports(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    converted = json.loads(invoke("to-hf", source, tmp_path / "hf", "--json").stdout)["result"]
    assert converted["ok"] is True
    assert converted["verification"]["l2"] == 0
    assert len(converted["verification"]["tensors"]) == 71
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"][2:3].fill_(float("nan")))
    result = invoke("verify", source, tmp_path / "hf", "--json")
    assert result.exit_code == 1
    compared = json.loads(result.stdout)["result"]
    assert compared["identical"] is False
    assert compared["l2"] == "nan"
    assert compared["first_differing_element"] == {"multi_modal_projector.layer_norm.bias": 2}
    inspected = json.loads(invoke("inspect", source, "--json").stdout)["result"]
    assert inspected["family"] == "Qwen3"


def test_verify_exits_with_1_on_any_difference(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    same = invoke("verify", source, tmp_path / "hf")
    assert same.exit_code == 0
    assert same.stdout.startswith("Identical: 71 of 71")
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"][2:3].add_(1))
    changed = invoke("verify", source, tmp_path / "hf")
    assert changed.exit_code == 1
    assert "Different: 70 of 71" in changed.stdout
    assert re.search(r"multi_modal_projector\.layer_norm\.bias +2 ", changed.stdout)
    assert "The vision tower, the language model and the output head are untouched" in changed.stdout
    rewrite(source, lambda tensors: tensors.pop("mlp1.0.bias"))
    assert "unexpected: multi_modal_projector.layer_norm.bias" in invoke("verify", source, tmp_path / "hf").stdout


def test_values_are_compared_across_dtypes_if_that_is_asked_for(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    invoke("cast", source, tmp_path / "wide", "--dtype", "float32")
    assert "71 mismatched" not in invoke("verify", source, tmp_path / "wide", "--ignore-dtype").stdout
    equal = invoke("verify", source, tmp_path / "wide", "--ignore-dtype")
    assert equal.exit_code == 0
    assert "tensors have equal values" in equal.stdout
    assert "bit for bit" not in equal.stdout
    strict = invoke("verify", source, tmp_path / "wide")
    assert strict.exit_code == 1
    assert "--ignore-dtype compares the values" in strict.stdout
    assert re.search(r"layers\.\*\.[a-z_.0-9]+: BF16 .* F32 .* found \(2 tensors\)", strict.stdout)
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"][2:3].add_(1))
    changed = invoke("verify", source, tmp_path / "wide", "--ignore-dtype")
    assert changed.exit_code == 1
    assert re.search(r"mlp1\.0\.bias +2 ", changed.stdout)
    assert "every value is equal" in changed.stdout
    assert invoke("verify", "--checksums", source, "--ignore-dtype").exit_code == 2


def test_a_reference_that_lacks_keys_exits_with_1_and_keeps_the_output(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    internvl_bridge.to_hf(source, tmp_path / "reference")
    rewrite(tmp_path / "reference", lambda tensors: tensors.pop("multi_modal_projector.linear_2.bias"))
    result = invoke("to-hf", source, tmp_path / "hf", "--reference", tmp_path / "reference")
    assert result.exit_code == 1
    assert "missing: multi_modal_projector.linear_2.bias" in result.stdout
    assert internvl_bridge.verify(source, tmp_path / "hf").identical


def test_inspect_tells_what_there_is(custom: Custom):
    text = invoke("inspect", custom("qwen3moe-6b")).stdout
    for word in (
        "custom",
        "Qwen3-MoE",
        "4 experts",
        "InternViT-6B kind",
        "225,152 in 81",
        "BF16",
        "stored",
    ):
        assert word in text
    stored = invoke("inspect", DATA / "hf" / "qwen3-300m-tied@5.4.0").stdout
    for word in ("hf, keys spelled L3", "InternViT-300M kind", "tied to the input embeddings", "yes"):
        assert word in stored
    spoiled = custom("qwen2-300m")
    rewrite(spoiled, lambda tensors: tensors.pop("mlp1.0.bias"))
    assert "no. config.json describes mlp1.0.bias" in invoke("inspect", spoiled).stdout


def test_dry_run_prints_the_plan_and_writes_nothing(custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    result = invoke("to-hf", source, tmp_path / "hf", "--dry-run")
    assert result.exit_code == 0
    for line in (
        "attention.k_proj.weight <- vision_model.encoder.layers.*.attn.qkv.weight[32:64]",
        "1 x multi_modal_projector.linear_1.bias <- mlp1.1.bias",
        "attention.wqkv.weight[32:48] + language_model.model.layers.*.attention.wqkv.weight[96:112]",
        "1 file of weights",
    ):
        assert line in result.stdout
    assert not (tmp_path / "hf").exists()
    plan = json.loads(invoke("to-hf", source, tmp_path / "hf", "--dry-run", "--json").stdout)["result"]
    assert plan["plan"]["multi_modal_projector.linear_1.bias"] == {
        "dtype": "BF16",
        "shape": [64],
        "runs": [["mlp1.1.bias", 0, 64]],
    }
    assert "config.json" in plan["files"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["internlm2-300m"]


@pytest.mark.parametrize("arguments", [[], ["to-hf"], ["to-hf", "a"], ["frobnicate"], ["verify", "a", "b", "--x"]])
def test_wrong_usage_exits_with_2(arguments: list[str]):
    done = subprocess.run([*BRIDGE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_file_system_error_is_a_paragraph(custom: Custom, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    result = invoke("to-hf", custom("qwen2-300m"), tmp_path / "file" / "hf")
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output


def completed(words: str) -> list[str]:
    """What the tab key offers in bash after ``words``; nothing where bash shall offer files."""
    script = subprocess.run(
        BRIDGE,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"_INTERNVL_BRIDGE_COMPLETE": "source_bash"},
    ).stdout
    assert "-o default" in script
    environment = {"_INTERNVL_BRIDGE_COMPLETE": "complete_bash", "COMP_WORDS": words}
    count = {"COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(BRIDGE, capture_output=True, text=True, check=True, env=os.environ | environment | count)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("internvl-bridge to", ["to-hf", "to-custom"]),
        ("internvl-bridge verify --so", ["--sort"]),
        ("internvl-bridge verify --sort ", ["relative", "l2", "largest", "name"]),
        ("internvl-bridge cast a b --dtype fl", ["float16", "float32"]),
        ("internvl-bridge to-hf a b --accept fo", ["fork"]),
        ("internvl-bridge to-hf ./mo", []),
        ("internvl-bridge doctor --config ./mo", []),
    ],
)
def test_the_tab_key_completes_commands_options_values_and_leaves_paths_to_the_shell(words: str, offered: list[str]):
    assert completed(words) == offered


def test_a_first_run_shows_the_commands_that_most_people_need():
    done = subprocess.run(BRIDGE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    for command in ("inspect", "to-hf", "to-custom", "doctor", "--help", "--install-completion"):
        assert f"internvl-bridge {command}" in done.stdout
    assert len(done.stdout.splitlines()) < 12
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_reader_that_goes_away_is_no_error(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    process = subprocess.Popen(
        [*BRIDGE, "verify", "-v", str(source), str(tmp_path / "hf")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def test_a_reader_that_goes_away_changes_no_exit_code(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    rewrite(source, lambda tensors: tensors["mlp1.0.bias"].add_(1))
    script = f"set -o pipefail; {' '.join(BRIDGE)} verify -v {source} {tmp_path / 'hf'} | true"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=False).returncode == 1  # noqa: S607


def test_a_closed_stderr_is_no_obstacle(custom: Custom, tmp_path: Path):
    script = f"{' '.join(BRIDGE)} to-hf {custom('qwen2-300m')} {tmp_path / 'hf'} 2>&-"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=False).returncode == 0  # noqa: S607
    assert (tmp_path / "hf" / "model.safetensors").is_file()


def test_a_full_disk_names_the_file_and_leaves_nothing(custom: Custom, tmp_path: Path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    result = invoke("to-hf", custom("qwen2-300m"), tmp_path / "hf")
    assert result.exit_code == 2
    assert "hf.partial/files/tokenizer.json: No space left on device" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen2-300m"]


def test_a_defect_is_a_paragraph_too(custom: Custom, tmp_path: Path, monkeypatch):
    from internvl_bridge.cli import commands

    def broken(*_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(commands, "prepare", broken)
    result = invoke("to-hf", custom("qwen2-300m"), tmp_path / "hf")
    assert result.exit_code == 2
    assert "ZeroDivisionError" in result.stderr
    assert "report this line and the command" in result.stderr
    assert "Traceback" not in result.output


def test_keys_cannot_write_to_the_terminal(custom: Custom, tmp_path: Path):
    import torch

    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.update({"\x1b[2Jevil\nline": torch.zeros(1)}))
    result = invoke("to-hf", source, tmp_path / "hf")
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "\\x1b[2Jevil\\nline" in result.stderr


def test_many_shards_need_few_descriptors(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    shards = tmp_path / "shards"
    internvl_bridge.to_hf(source, shards, max_shard_size=1)
    script = f"ulimit -n 64; {' '.join(BRIDGE)} to-custom {shards} {tmp_path / 'back'}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    assert len(list(shards.glob("*.safetensors"))) == 73


def test_progress_is_shown_on_a_terminal(custom: Custom, tmp_path: Path):
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*BRIDGE, "to-hf", str(custom("qwen2-300m")), str(tmp_path / "hf")],
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            byte_range = os.read(main, 4096)
        except OSError:
            break
        if not byte_range:
            break
        shown += byte_range
    os.close(main)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert b"Converting and verifying" in shown
    assert b"Converting" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_conversion_leaves_nothing(number: signal.Signals, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    script = (
        "import os, time\nfrom internvl_bridge.storage import small_files\nfrom internvl_bridge.cli.app import main\n"
        "write = small_files.write_bytes\n"
        "def slow(*arguments):\n    write(*arguments)\n    os.write(1, b'writing\\n')\n    time.sleep(1)\n"
        "small_files.write_bytes = slow\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "to-hf", str(source), str(tmp_path / "hf")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    assert (tmp_path / "hf.partial").is_dir()
    process.send_signal(number)
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 20
    assert process.returncode == 130
    assert errors == "Interrupted. No half output is visible.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen2-300m"]


def test_a_conversion_that_must_not_hang_up_does_not(custom: Custom, tmp_path: Path):
    """As ``nohup`` starts it."""
    source = custom("qwen2-300m")
    script = (
        "import os, signal\nfrom internvl_bridge.storage import small_files\n"
        "from internvl_bridge.__main__ import main\n"
        "write = small_files.write_bytes\n"
        "def hangup(*arguments):\n    write(*arguments)\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "small_files.write_bytes = hangup\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nmain()\n"
    )
    command = [sys.executable, "-c", script, "to-hf", str(source), str(tmp_path / "hf"), "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "hf").is_dir()


def test_an_interrupt_that_comes_too_late_says_that_the_output_is_complete(custom: Custom, tmp_path: Path):
    source, output = custom("qwen2-300m"), tmp_path / "hf"
    script = (
        "import os, signal\nfrom internvl_bridge.convert import write_small_files as run\n"
        "from internvl_bridge.__main__ import main\nwrite = run.write_bytes\n"
        "def late(path, data, files):\n    write(path, data, files)\n"
        "    if path.name == 'internvl_bridge.json':\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "run.write_bytes = late\nmain()\n"
    )
    command = [sys.executable, "-c", script, "to-hf", str(source), str(output)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == f"Interrupted. No half output is visible. {output} is complete.\n"
    assert internvl_bridge.verify(source, output).identical
    assert not (tmp_path / "hf.partial").exists()


def test_signals_at_the_very_end_change_nothing(custom: Custom):
    script = (
        "import atexit, os, signal\nfrom internvl_bridge.__main__ import main\n"
        "numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP\n"
        "atexit.register(lambda: [os.kill(os.getpid(), number) for number in numbers])\nmain()\n"
    )
    command = [sys.executable, "-c", script, "inspect", str(custom("qwen2-300m"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_name_that_cannot_be_printed_is_no_failure(custom: Custom, tmp_path: Path, encoding: str):
    source, output = custom("qwen2-300m"), tmp_path / "\u6a21\u578b"
    result = subprocess.run(
        [*BRIDGE, "to-hf", str(source), str(output)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"Verified:  read back" in result.stdout
    assert output.is_dir()


def test_the_exit_code_is_the_same_where_nobody_can_be_told(tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*BRIDGE, "inspect", str(tmp_path / "nothing")], stderr=full, check=False)
    assert result.returncode == 2


def test_a_report_that_cannot_be_printed_says_that_all_else_is_done(custom: Custom, tmp_path: Path):
    source, output = custom("qwen2-300m"), tmp_path / "hf"
    for arguments in (["to-hf", str(source), str(output)], ["--version"]):
        with Path("/dev/full").open("w") as full:
            command = [*BRIDGE, *arguments]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr == (
            "Error: The report cannot be printed on standard output: No space left on device. Everything else is done: "
            "print it elsewhere, or look at the result itself.\n"
        )
    assert internvl_bridge.verify(source, output).identical


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_fails_after_the_output_appeared_says_that_it_is_complete(
    custom: Custom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
):
    source, reference, output = custom("qwen2-300m"), tmp_path / "reference", tmp_path / "hf"
    internvl_bridge.to_hf(source, reference)

    def failing(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(directories, "compare_models", failing)
    with pytest.raises(error) as caught:
        internvl_bridge.to_hf(source, output, reference=reference)
    monkeypatch.undo()
    assert caught.value.__notes__ == [f"{output} is complete."]
    assert internvl_bridge.verify(source, output).identical


def test_an_interrupt_of_the_comparison_with_a_reference_is_heard(custom: Custom, tmp_path: Path):
    source, reference, output = custom("qwen2-300m"), tmp_path / "reference", tmp_path / "hf"
    internvl_bridge.to_hf(source, reference)

    def interrupting(task: str, _total: int, _files: int) -> Callable[[int, int], None]:
        steps = []

        def step(_done: int, finished: int) -> None:
            if finished:
                return
            assert not (task == "Comparing" and steps)
            steps.append(task)
            if task == "Comparing":
                signal.raise_signal(signal.SIGINT)

        return step

    with pytest.raises(KeyboardInterrupt) as caught:
        internvl_bridge.to_hf(source, output, reference=reference, progress=interrupting, workers=1)
    assert caught.value.__notes__ == [f"{output} is complete."]


def test_no_network_no_pickle_no_remote_code(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (source / "modeling_internvl_chat.py").write_text("raise SystemExit('remote code was run')")
    script = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event.startswith(('socket.', 'pickle.', 'subprocess.', 'os.exec', 'os.system')):\n"
        "        raise RuntimeError(event)\n"
        "sys.addaudithook(watch)\n"
        "import internvl_bridge\n"
        "internvl_bridge.to_hf(sys.argv[1], sys.argv[2])\n"
        "internvl_bridge.to_custom(sys.argv[2], sys.argv[3], reference=sys.argv[1])\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "hf"), str(tmp_path / "back")], check=True
    )
