"""A log gets a line every half a minute, and no more."""

from internvl_bridge.cli.progress_lines import progress_lines


def lines(steps: list[tuple[float, int]], total: int, files: int = 1) -> list[str]:
    """What is said when ``(seconds, bytes)`` pass one after the other, and each step finishes a file."""
    time = 0.0
    said: list[str] = []
    report = progress_lines(said.append, lambda: time)("Converting", total, files)
    for seconds, count in steps:
        time += seconds
        report(count, 1)
    return said


def test_a_line_every_half_a_minute():
    assert lines([(1, 1 << 30)] * 95, 190 << 30, 90) == [
        "Converting: file 31 of 90, 30.0 GiB of 190.0 GiB (16%), 1.0 GiB/s, 3 min left",
        "Converting: file 61 of 90, 60.0 GiB of 190.0 GiB (32%), 1.0 GiB/s, 2 min left",
        "Converting: file 90 of 90, 90.0 GiB of 190.0 GiB (47%), 1.0 GiB/s, 2 min left",
    ]


def test_what_takes_less_says_nothing():
    assert lines([(10, 5), (19, 5)], 10) == []


def test_what_stands_still_is_said_too():
    assert lines([(40, 0)], 10) == ["Converting: file 1 of 1, 0 B of 10 B (0%), 0 B/s"]


def test_hours_are_hours():
    assert lines([(3600, 100)], 1000) == ["Converting: file 1 of 1, 100 B of 1000 B (10%), 0 B/s, 9 h 0 min left"]
