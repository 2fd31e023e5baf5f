"""What came of opening a checkpoint with the installed transformers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from internvl_bridge.reporting.tables import as_html
from internvl_bridge.verification.tensor_difference import as_number


@dataclass(frozen=True, slots=True)
class Prompted:
    """What a model computed of one prompt.

    ``tokens`` counts those of the prompt, ``finite`` says whether all logits are. ``next_token`` is the likeliest token
    after it, as text; None without a tokenizer. ``inputs`` says what made those of the prompt.
    """

    inputs: str
    tokens: int
    finite: bool
    next_token: str | None


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """How the logits of two models differ, of the same inputs.

    ``largest`` is the largest difference of two logits, ``relative`` the same in units of the largest logit.
    ``agrees``: it is not more than another order of sums explains. ``same_next_token``: the likeliest is the same.
    ``same_inputs`` says whether both processors make the same of the prompt, None if not both could be opened.
    """

    path: str
    largest: float
    relative: float
    agrees: bool
    same_next_token: bool
    same_inputs: bool | None

    @property
    def ok(self) -> bool:
        """Whether both compute the same of the same prompt."""
        return self.agrees and self.same_inputs is not False

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {**asdict(self), "largest": as_number(self.largest), "relative": as_number(self.relative)}


@dataclass(frozen=True, slots=True, repr=False)
class LoadCheck:
    """What came of opening the checkpoint ``path``.

    ``opened_by`` is the call, ``imported`` are the packages that it needed, with their versions. ``error`` is what
    opening or computing raised, None if nothing; ``against_error`` is that of the model that it was compared with.
    ``layers``: only so many were opened; ``on_meta``: only names and shapes were compared. ``missing`` parameters are
    not in the files, so that transformers made them up. ``unexpected`` tensors found no place, ``mismatched`` have
    another shape. ``changed`` parameters are not what the files hold, ``as_stored`` counts those that are; None if that
    was not compared. ``processor`` is its class, ``processor_error`` why it does not open. ``bytes`` is the size of the
    parameters, ``peak_bytes`` the most memory that this process had, ``seconds`` the time.
    """

    path: str
    format: str
    opened_by: str
    imported: Mapping[str, str]
    error: str | None
    layers: int | None
    on_meta: bool
    parameters: int
    bytes: int
    dtype: str | None
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    changed: tuple[str, ...]
    as_stored: int | None
    processor: str | None
    processor_error: str | None
    prompted: Prompted | None
    against: LogitDifference | None
    against_error: str | None
    peak_bytes: int
    seconds: float

    @property
    def loads(self) -> bool:
        """Whether all of it opens, every tensor in its place, and computes numbers."""
        opens = not (self.error or self.processor_error)
        in_place = not (self.missing or self.unexpected or self.mismatched or self.changed)
        computes = self.prompted is None or self.prompted.finite
        return opens and in_place and computes

    @property
    def ok(self) -> bool:
        """Whether it loads, and computes what it was compared with."""
        return self.loads and not self.against_error and (self.against is None or self.against.ok)

    def __repr__(self) -> str:
        return f"LoadCheck(path={self.path!r}, ok={self.ok}, opened_by={self.opened_by!r}, error={self.error!r})"

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.in_memory.load_check_report import load_check_report  # noqa: PLC0415 (it knows this)

        return as_html(load_check_report(self))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        against = None if self.against is None else self.against.as_json()
        return {
            **asdict(self),
            "against": against,
            "seconds": round(self.seconds, 3),
            "loads": self.loads,
            "ok": self.ok,
        }
