"""What the kernel says about the process that asks gets into no output."""

from pathlib import Path

import pytest

from internvl_bridge.errors import CheckpointError
from internvl_bridge.metadata.kernel_files import check_no_kernel_files


def test_a_link_to_the_environment_is_refused_and_others_are_not(tmp_path: Path) -> None:
    for name, target in {"a": "/dev/zero", "b": "/nowhere", "c": __file__, "d": "/proc"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "e").touch()
    check_no_kernel_files(tmp_path)
    (tmp_path / "README.md").symlink_to("/proc/self/environ")
    with pytest.raises(CheckpointError, match=r"README\.md leads to /proc/\d+/environ, which is of the kernel"):
        check_no_kernel_files(tmp_path)
