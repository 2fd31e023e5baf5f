"""MPI's executor writes an output."""

import subprocess
import sys
from pathlib import Path

from checkpoints import files_of

SCRIPT = """
import sys
import internvl_bridge
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        internvl_bridge.to_hf(*sys.argv[1:3], max_shard_size="60KB", executor=executor)
"""


def test_mpi_has_an_executor(source: Path, expected: dict[str, bytes], tmp_path: Path):
    (tmp_path / "convert.py").write_text(SCRIPT)
    output = source.with_name("by-mpi")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", tmp_path / "convert.py", source, output]
    subprocess.run([*map(str, command)], check=True, timeout=120)
    assert files_of(output) == expected
