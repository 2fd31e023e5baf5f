"""Show the converter at work on a small synthetic checkpoint: ``make demo``."""

import filecmp
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from synthetic import PRESETS, make

_OUTPUT = Path("demo-output")


def bridge(*arguments: str) -> None:
    """Run and show one ``internvl-bridge`` command."""
    print(f"\n$ internvl-bridge {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "internvl_bridge", *arguments], check=True)


def main() -> None:
    """Make a custom checkpoint, convert it there and back, and compare every file."""
    shutil.rmtree(_OUTPUT, ignore_errors=True)
    custom, hf, back = (str(_OUTPUT / name) for name in ("custom", "hf", "back"))
    make(Path(custom), PRESETS["tiny"])
    print(f"Made a synthetic InternVL checkpoint with random weights in {custom}.")
    bridge("inspect", custom)
    bridge("to-hf", custom, hf)
    bridge("inspect", hf)
    bridge("to-custom", hf, back)
    bridge("verify", custom, hf)
    bridge("verify", custom, back)
    names = sorted(path.name for path in Path(custom).iterdir())
    _, differing, failed = filecmp.cmpfiles(custom, back, names, shallow=False)
    if differing or failed:
        sys.exit(f"These files did not come back as they were: {', '.join(differing + failed)}")
    print(f"\nAll {len(names)} files of {custom} came back byte for byte in {back}.")


if __name__ == "__main__":
    main()
