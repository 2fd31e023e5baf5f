"""Measure how many new bytes a push of an output would upload, if its source is on the hub: ``benchmarks/push.py``.

Uses hf_xet, the client that huggingface_hub uploads with, against a store in a directory, without a network. Pushes a
synthetic checkpoint in 1B's shapes, then what ``to-hf`` makes of it. Needs 7 GB in the directory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def new_bytes(directory: Path, store: Path) -> tuple[int, int]:
    """Bytes of the files of weights in ``directory``, and how many of them ``store`` did not have; now it has them."""
    import hf_xet  # noqa: PLC0415 (it makes directories in HF_HOME when it is imported)

    commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{store}")
    for path in sorted(directory.glob("*.safetensors")):
        commit.start_upload_file(str(path), sha256=hf_xet.SKIP_SHA256)
    metrics = commit.wait_to_finish().dedup_metrics
    return int(metrics.total_bytes), int(metrics.new_bytes)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Measure how many new bytes a push of an output would upload.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--preset", default="1b", help="the shapes of the checkpoint (default: 1b)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        home = Path(name)
        os.environ["HF_HOME"] = str(home / "cache")
        custom, store = home / "custom", home / "store"
        made = (sys.executable, "examples/synthetic.py", str(custom), "--preset", arguments.preset)
        subprocess.run(made, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = [("the source", *new_bytes(custom, store))]
        for what, options in (("`to-hf`", ()), ("`to-hf --order name`", ("--order", "name"))):
            output = home / "-".join(["hf", *options])
            command = (sys.executable, "-m", "internvl_bridge", "to-hf", "--quiet", *options, str(custom), str(output))
            subprocess.run(command, cwd=_ROOT, check=True)
            rows.append((what, *new_bytes(output, store)))
    print("| pushed | bytes | new bytes | part |\n|---|---|---|---|")
    for what, total, new in rows:
        print(f"| {what} | {total:,} | {new:,} | {new / total:.4%} |")


if __name__ == "__main__":
    main()
