"""Show the converter at work on a small synthetic checkpoint: ``make demo``."""

import filecmp
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from synthetic import PRESETS, make

_OUTPUT = Path("demo-output")
_DIFFERS = 1


def say(sentence: str) -> None:
    """Explain the next step."""
    print(f"\n== {sentence}", flush=True)


def bridge(*arguments: str, expected: int = 0) -> None:
    """Run and show one ``internvl-bridge`` command; stop unless it exits with the code ``expected``."""
    print(f"$ internvl-bridge {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "internvl_bridge", *arguments], check=False).returncode
    if code != expected:
        sys.exit(f"The command exited with {code}, and {expected} was expected.")


def flip_a_bit(path: Path) -> None:
    """Change one bit of the last byte of a file."""
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


def main() -> None:
    """Convert a custom checkpoint there and back, compare every file, and show that a damaged copy is found."""
    shutil.rmtree(_OUTPUT, ignore_errors=True)
    custom, hf, back, damaged = (str(_OUTPUT / name) for name in ("custom", "hf", "back", "damaged"))
    say(f"Make a small InternVL checkpoint with random weights, in the custom format, in {custom}.")
    make(Path(custom), PRESETS["tiny"])
    say("Look at it: the headers and config.json say all of this.")
    bridge("inspect", custom)
    say("Convert it into the HF format of transformers: every bit is read back and compared.")
    bridge("to-hf", custom, hf, "--report", f"{hf}.html")
    say("Convert the result back into the custom format.")
    bridge("to-custom", hf, back)
    say("Compare the weights of the first and the last checkpoint, bit for bit.")
    bridge("verify", custom, back)
    names = sorted(path.name for path in Path(custom).iterdir())
    _, differing, failed = filecmp.cmpfiles(custom, back, names, shallow=False)
    if differing or failed:
        sys.exit(f"These files did not come back as they were: {', '.join(differing + failed)}")
    print(f"All {len(names)} files of {custom} came back byte for byte in {back}.")
    say("Flip one bit in a copy of the HF checkpoint. The comparison must fail, and name the tensor.")
    print("(Without torch the L2 distance is not measured: it is shown as nan.)")
    shutil.copytree(hf, damaged)
    flip_a_bit(max(Path(damaged).glob("*.safetensors")))
    bridge("verify", custom, damaged, expected=_DIFFERS)
    print(f"\nIt was found, as it should be (exit code {_DIFFERS}). The checkpoints are in {_OUTPUT}: look at them.")
    print(f"Open {hf}.html in a browser: it shows which tensor went where.")


if __name__ == "__main__":
    main()
