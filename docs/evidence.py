"""Write the cards in docs/evidence: what converting the stored checkpoints of the tests gives, a page for each family.

    python docs/evidence.py

There are no times, dates or paths on the cards. So the same versions on the same kind of machine make the same files.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import internvl_bridge
from internvl_bridge.catalog.engines import ENGINES, Support
from internvl_bridge.catalog.releases import AWQ, RELEASES, Release
from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, INTERNLM3, INTERNLM3_GROUPED, QWEN3_MOE, Family
from internvl_bridge.mapping.formats import Format

ROOT = Path(__file__).parent.parent
_CARDS = ROOT / "docs" / "evidence"
_DATA = ROOT / "tests" / "data"
_DIFFERS = 1
_TO_HF = ("to-hf", "custom", "hf")
_VERIFY = ("verify", "custom", "hf", "--json")
_TO_CUSTOM = ("to-custom", "hf", "back")

_IN_PYTHON = """\
import os
import sys

sys.path.insert(0, f"{{os.environ['CLONE']}}/tests")
import conftest  # keeps away from the network, and lets torchvision be imported beside a torch for CPUs
import torch
from safetensors.torch import load_file
from transformers import InternVLForConditionalGeneration

import internvl_bridge

torch.set_num_threads(1)
seen = internvl_bridge.check_load("hf", against="custom")
print(seen.loads, seen.against.largest)

model = InternVLForConditionalGeneration.from_pretrained("hf", dtype=torch.float32, attn_implementation="eager")
upstream = load_file(f"{{os.environ['CLONE']}}/tests/data/expected/{name}.safetensors")
with torch.no_grad():
    logits = model.eval()(pixel_values=upstream["pixel_values"], input_ids=upstream["input_ids"]).logits
print((logits - upstream["logits"]).abs().max().item())
"""

_MADE_UP = """\
The stored checkpoints are small and made up. They have the keys of the family and its kinds of shapes, with two layers
and random numbers. They are not the released weights."""

_WITHOUT: Mapping[Family, str] = {
    INTERNLM3: "The tests convert a stored Llama under its name. No logits of its own class are stored.",
    INTERNLM3_GROUPED: "The tests convert a stored InternLM2 under its name. No release is known to have these keys.",
}
"""What there is of a family of which no checkpoint is stored."""

_NOT_STORED: Mapping[Family, str] = {
    QWEN3_MOE: "Fused experts (`to-hf --experts fused`), which transformers 5.0 to 5.3 need.",
    GPT_OSS: "Experts in blocks of 4 bits (MXFP4). The stored checkpoint has them in bfloat16.",
}
"""What else of a family no card shows."""

_FORMATS: Mapping[Format, str] = {Format.HF: "HF", Format.CUSTOM: "custom"}
_WHOLE = ("transformers", "mlx-vlm")
"""The engines of which the model itself was run, as docs/serving.md says."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of one stored checkpoint.

    ``tensors`` are counted as stored and as in the HF format. ``equal`` of ``files`` came back with the same bytes, and
    the way back added the files ``added``. ``verified`` is what ``verify`` printed. ``opens``: with every tensor in its
    place. ``upstream`` and ``source`` are largest differences of two logits; None where nothing could be compared.
    """

    name: str
    family: Family
    tower: str
    tied: bool
    tensors: tuple[int, int]
    files: int
    equal: int
    added: tuple[str, ...]
    verified: Mapping[str, Any]
    opens: bool
    source: float | None
    upstream: float


def main() -> None:
    """Make all cards anew."""
    sys.path.insert(0, str(ROOT / "tests"))
    import_module("conftest")  # what torchvision needs beside a torch for CPUs
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        results = [_result(Path(place), path.name) for path in sorted((_DATA / "custom").iterdir())]
    by_family = {family: [result for result in results if result.family is family] for family in FAMILIES}
    shutil.rmtree(_CARDS, ignore_errors=True)
    _CARDS.mkdir()
    for family, found in by_family.items():
        if found:
            _write(_card_name(family), _card(family, found))
    _write("index.md", _index(by_family))


def _write(name: str, parts: Iterable[str]) -> None:
    (_CARDS / name).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _card_name(family: Family) -> str:
    return f"{family.name.lower()}.md"


def _result(place: Path, name: str) -> _Result:
    """Convert the stored checkpoint ``name`` both ways, and compare all that comes of it."""
    home = place / name
    custom, hf, back = home / "custom", home / "hf", home / "back"
    shutil.copytree(_DATA / "custom" / name, custom)
    shutil.copytree(_DATA / "tokenizers" / _tokenizer(name), custom, dirs_exist_ok=True)
    _run(home, _TO_HF)
    verified = json.loads(_run(home, _VERIFY, may_exit_with=_DIFFERS))["result"]
    _run(home, _TO_CUSTOM)
    found = internvl_bridge.inspect(custom)
    [family] = [family for family in FAMILIES if family.name == found.family]
    seen = internvl_bridge.check_load(hf, against=custom)
    before, after = ({path.name: path.read_bytes() for path in directory.iterdir()} for directory in (custom, back))
    return _Result(
        name=name,
        family=family,
        tower=found.tower,
        tied=bool(found.tied),
        tensors=(found.tensors, internvl_bridge.inspect(hf).tensors),
        files=len(before),
        equal=sum(after.get(file) == data for file, data in before.items()),
        added=tuple(sorted(after.keys() - before.keys())),
        verified=verified,
        opens=seen.loads,
        source=seen.against.largest if seen.against else None,
        upstream=_difference_to_upstream(hf, name),
    )


def _tokenizer(name: str) -> str:
    """The stored tokenizer that goes with a stored checkpoint."""
    return "internlm2" if name.startswith("internlm2") else "bpe"


def _run(home: Path, command: Sequence[str], may_exit_with: int = 0) -> str:
    """Run a command of internvl-bridge in ``home``; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "internvl_bridge", *command]
    done = subprocess.run(line, cwd=home, env=environment, check=False, capture_output=True, text=True)
    if done.returncode not in {0, may_exit_with}:
        sys.exit(f"{home.name}: {' '.join(command)} exited with {done.returncode}.\n{done.stderr}")
    return done.stdout


def _difference_to_upstream(hf: Path, name: str) -> float:
    """The largest difference of logits between transformers' class, and those that upstream's class computed."""
    transformers: Any = import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.InternVLForConditionalGeneration.from_pretrained(
        hf, dtype=torch.float32, attn_implementation="eager"
    )
    upstream = load_file(_DATA / "expected" / f"{name}.safetensors")
    with torch.no_grad():
        logits = model.eval()(pixel_values=upstream["pixel_values"], input_ids=upstream["input_ids"]).logits
    return float((logits - upstream["logits"]).abs().max())


def _card(family: Family, results: Sequence[_Result]) -> Iterator[str]:
    """The parts of a page."""
    releases = _releases(family)
    yield f"# Evidence: {family.name}"
    yield f"Made by `make evidence`, and not written by hand. [All families](index.md).\n\n{_MADE_UP}"
    yield "## Results"
    yield _table(_RESULTS, (_row(result) for result in results))
    yield _EXPLAINED
    yield "## Versions"
    yield _table(("Package", "Version"), _versions().items())
    yield "## Commands"
    yield from _commands(results[0])
    yield "## What the family stands for"
    yield _table(("Release", "Size", "Language model", "Tower"), (_release_row(release) for release in releases))
    yield "[docs/models.md](../models.md) says where their numbers are from, and has remarks."
    yield "## Serving engines"
    yield _ENGINES
    engines = ((e.name, e.version, _support(e.hf, family), _support(e.custom, family)) for e in ENGINES)
    yield _table(("Engine", "Version looked at", "HF format", "Custom format"), engines)
    yield "## What was not tried"
    yield "\n".join(f"* {sentence}" for sentence in _not_tried(family, results))


_RESULTS = (
    *("Checkpoint", "Tower", "Tensors, custom", "Tensors, HF", "Files that came back with the same bytes"),
    *("`verify`", "Opens in transformers", "Logits: largest difference, upstream's class", "The same, source"),
)
_EXPLAINED = """\
* *Files*: each file of the source is compared with that of the way back, byte for byte. Among them are config.json and
  the tokenizer. `internvl_bridge.json` is the sidecar that each conversion leaves.
* *`verify`*: every tensor of the output is compared with the source, bit for bit.
* *Opens*: transformers reports no key as missing or unexpected, and every parameter has the bits of the files.
* *Upstream's class*: its logits were computed once by upstream's own code, in float32. They are stored in
  `tests/data/expected`. The tests allow a difference of 2e-5, as float32 sums in another order have.
* *Source*: the custom checkpoint is opened as it is (`internvl_bridge.load_pretrained`), and gets the same prompt. The
  class is transformers' own, in the dtype of the files. 0 means that all logits are equal."""
_ENGINES = """\
From [docs/serving.md](../serving.md), which has the details. *Run*: the engine's own code was run on converted
checkpoints: its selectors, its weight mappers or its converter. *Read*: its source was read, and nothing was run. Of
transformers and mlx-vlm, the model itself was run. `make evidence` runs transformers alone. A remark is about the
engine, and may concern another family."""


def _row(result: _Result) -> tuple[str, ...]:
    verified = result.verified
    compared = len(verified["tensors"])
    others = f", {', '.join(f'`{name}`' for name in result.added)} added" if result.added else ""
    return (
        f"`{result.name}`",
        f"{_kind(result.tower)}{', tied output head' if result.tied else ''}",
        str(result.tensors[0]),
        str(result.tensors[1]),
        f"{result.equal} of {result.files}{others}",
        f"{'identical' if verified['identical'] else 'differs'}, {compared} tensors, L2 {verified['l2']:g}",
        "yes" if result.opens else "no",
        f"{result.upstream:.1e}",
        "not compared" if result.source is None else f"{result.source:g}",
    )


def _commands(first: _Result) -> Iterator[str]:
    """What was typed for one checkpoint."""
    yield (
        f"In a new directory for each checkpoint of the table, here for `{first.name}`. `CLONE` is the path of a\n"
        "clone of this repository, of which `make .venv/ready` has made the environment."
    )
    copying = (
        f'cp -r "$CLONE"/tests/data/custom/{first.name} custom',
        f'cp "$CLONE"/tests/data/tokenizers/{_tokenizer(first.name)}/* custom',
    )
    typed = (f"internvl-bridge {' '.join(command)}" for command in (_TO_HF, _VERIFY, _TO_CUSTOM))
    yield _code("sh", "\n".join((*copying, *typed, "diff -r custom back")))
    yield "`make evidence` compares the files in Python instead of by `diff`. The logits, in Python:"
    yield _code("python", _IN_PYTHON.format(name=first.name))


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _not_tried(family: Family, results: Sequence[_Result]) -> Iterator[str]:
    """What nobody should read into a card."""
    releases = _releases(family)
    yield "The released weights: none of them was opened for this page."
    for tower in dict.fromkeys(_kind(release.tower.kind) for release in releases):
        if tower not in {_kind(result.tower) for result in results}:
            names = ", ".join(release.name for release in releases if _kind(release.tower.kind) == tower)
            yield f"This family with {tower}. These releases have it: {names}."
    if not any(result.tied for result in results):
        yield "A tied output head: no stored checkpoint of this family has one."
    if family in _NOT_STORED:
        yield _NOT_STORED[family]
    if quantised := [release.name for release in releases if AWQ in release.variants]:
        yield f"Quantised releases, {AWQ} of: {', '.join(quantised)}."
    yield "A GPU, and the generation of text."
    yield "Upstream's own code. It was run once for the stored logits, and `make evidence` does not run it."
    yield "Other versions of transformers than that above. `make test-matrix` runs some of the tests in 4.57."
    yield from _untried_engines(family)


def _untried_engines(family: Family) -> Iterator[str]:
    """The engines of which little or nothing was run."""
    for format_ in (Format.HF, Format.CUSTOM):
        supports = {engine.name: engine.support(format_) for engine in ENGINES}
        taken = {name: support for name, support in supports.items() if support and family in support.families}
        read = [name for name, support in taken.items() if not support.was_run]
        parts = [name for name, support in taken.items() if support.was_run and name not in _WHOLE]
        refusing = [name for name in supports if name not in taken]
        which = f"with the {_FORMATS[format_]} format"
        if parts:
            yield f"A running server {which}. Only parts of the code were run: {', '.join(parts)}."
        if read:
            yield f"Any code of these engines {which}: {', '.join(read)}."
        if refusing:
            yield f"Engines that do not take this family {which}: {', '.join(refusing)}."


def _index(by_family: Mapping[Family, Sequence[_Result]]) -> Iterator[str]:
    yield "# Evidence"
    yield f"{_OF_INDEX}\n\n{_MADE_UP}"
    heads = ("Family", "Checkpoints", "Same files after both ways", "Logits: upstream's class", "Logits: source")
    yield _table((*heads, "Releases"), (_index_row(family, results) for family, results in by_family.items()))
    yield _LOGITS
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in _versions().items())}."
    if without := [family for family, results in by_family.items() if not results]:
        yield "No checkpoint is stored of these families, so they have no card:"
        yield "\n".join(f"* {family.name}. {_WITHOUT.get(family, '')}".rstrip() for family in without)


_OF_INDEX = """\
What conversions made of the stored checkpoints of each family: the files that came back, and the logits. Each card has
the commands, the serving engines, and what was not tried. `make evidence` makes these pages again, from a clone and
without the network. The same versions on the same kind of processor make the same files."""
_LOGITS = """\
*Logits* is the largest difference of two of them. *Upstream's class*: upstream's own code computed the others once, in
float32. *Source*: the others are those of the custom checkpoint, opened as it is. The cards explain more."""


def _index_row(family: Family, results: Sequence[_Result]) -> tuple[str, ...]:
    releases = ", ".join(release.name for release in _releases(family)) or "none known"
    if not results:
        return (family.name, "none stored", *["no card"] * 3, releases)
    files, equal = sum(result.files for result in results), sum(result.equal for result in results)
    against = [result.source for result in results if result.source is not None]
    return (
        f"[{family.name}]({_card_name(family)})",
        str(len(results)),
        f"{equal} of {files}",
        f"{max(result.upstream for result in results):.1e}",
        f"{max(against):g}" if len(against) == len(results) else "not compared",
        releases,
    )


def _versions() -> Mapping[str, str]:
    packages = {name: version(name) for name in ("transformers", "torch", "safetensors")}
    return {"internvl-bridge": internvl_bridge.__version__, **packages, "Python": platform.python_version()}


def _releases(family: Family) -> tuple[Release, ...]:
    return tuple(release for release in RELEASES if release.language_model.family is family)


def _release_row(release: Release) -> tuple[str, ...]:
    names = ", ".join((release.name, *release.variants))
    return (names, f"{release.parameters / 1e9:.1f}B", release.language_model.name, _kind(release.tower.kind))


def _kind(tower: str) -> str:
    return tower.removesuffix(" kind")


def _support(support: Support | None, family: Family) -> str:
    if support is None or family not in support.families:
        return "no"
    return " ".join(filter(None, (f"{'run' if support.was_run else 'read'}.", support.remark)))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


if __name__ == "__main__":
    main()
