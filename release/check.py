"""Check the package as an index gets it: ``make release-check``.

Builds wheel and sdist, checks their metadata, installs each into a clean environment, and converts a checkpoint there.
Runs tests out of the sdist, the command line without torch, and the notebook. Needs the network and some gigabytes.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_WITHOUT_TORCH = ("typer", "xxhash", "jinja2")
_TESTS = ("tests/test_public_surface.py", "tests/test_docstrings.py", "tests/cli", "tests/pages", "tests/planning")


def main() -> None:
    """Run every check; the first that fails ends the program."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        wheel, sdist = _build(home / "dist")
        step("The metadata is what an index takes, and the readme renders")
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        source = _unpacked(sdist, home / "source")
        for name, package in (("wheel", wheel), ("sdist", sdist)):
            step(f"The {name}, in a clean environment")
            _try(_environment(home / name, [str(package)]), home / f"tried-{name}", source)
        step("The command line without torch and transformers")
        slim = _environment(home / "slim", ["--no-deps", str(wheel)])
        _install(slim, _WITHOUT_TORCH)
        _try(slim, home / "tried-slim", source)
        print(f"{_size(home / 'slim') / 1e6:.0f} MB; with torch and transformers {_size(home / 'wheel') / 1e6:.0f} MB")
        step("Tests out of the sdist")
        run(sys.executable, "-m", "pytest", "-q", *_TESTS, cwd=source, PYTHONPATH=str(source))
        step("The notebook")
        run(sys.executable, "examples/run_notebook.py", "examples/reports.ipynb", cwd=_ROOT, PYTHONPATH=str(_ROOT))
    print("\nAll checks passed.")


def step(sentence: str) -> None:
    """Say what is checked next."""
    print(f"\n== {sentence}", flush=True)


def run(*command: str, cwd: Path | None = None, **variables: str) -> None:
    """Run a command; end the program with its exit code if it fails."""
    code = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, check=False).returncode
    if code:
        sys.exit(f"{' '.join(command)} exited with {code}.")


def _build(place: Path) -> tuple[Path, Path]:
    step("Wheel and sdist are built")
    run(sys.executable, "-m", "build", "--outdir", str(place), str(_ROOT))
    [wheel], [sdist] = place.glob("*.whl"), place.glob("*.tar.gz")
    return wheel, sdist


def _unpacked(sdist: Path, place: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    [source] = place.iterdir()
    return source


def _environment(place: Path, what: Sequence[str]) -> Path:
    venv.create(place, with_pip=True)
    _install(place, what)
    return place


def _install(environment: Path, what: Sequence[str]) -> None:
    constraints = ["--constraint", str(_ROOT / "constraints.txt")]
    run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *constraints, *what)


def _try(environment: Path, place: Path, source: Path) -> None:
    """Convert a checkpoint there and back with the program that is installed, away from the repository."""
    place.mkdir()
    python, program = str(environment / "bin" / "python"), str(environment / "bin" / "internvl-bridge")
    run(python, str(source / "examples" / "synthetic.py"), "custom", cwd=place)
    run(program, "to-hf", "custom", "hf", "--report", "hf.html", cwd=place)
    run(program, "to-custom", "hf", "back", "--quiet", cwd=place)
    run(program, "verify", "custom", "back", cwd=place)
    run(python, "-c", "import internvl_bridge; print(internvl_bridge.inspect('hf').family)", cwd=place)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
