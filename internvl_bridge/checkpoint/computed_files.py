"""The interpreter of computed tensors: a file system whose files are computed as they are read. Imports torch.

Each tensor is computed in blocks of rows that depend on its shape alone, each on one thread. So what is read twice is
the same twice, however large the windows are and however many workers there are.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import torch

from internvl_bridge.checkpoint.computed_tensors import ComputedTensor, Factor, Rounding, sliced
from internvl_bridge.checkpoint.lora_tensors import taken
from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.errors import OutOfRangeError
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.file_system import ByteSink, ByteSource, FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.reading import FileReader, ended
from internvl_bridge.storage.stamps import Stamp

_BLOCK = 1 << 19
"""Elements that are computed at a time. With fewer, calling torch takes longer than the sums; more leave the cache."""
_KEPT = 8
"""Factors that are kept in float64."""
_GROUP = 16
"""Elements that are looked at together, where few of very many are sought."""


@dataclass(frozen=True, slots=True)
class ComputedFiles:
    """The files of ``under``, and those that ``tensors`` are, by their paths.

    ``roundings`` are measured if ``measures``, and known by the key of the tensor when it was read to its end.
    ``rooms`` is memory for blocks that nobody uses at the moment: new memory for each would take longer than the sums.
    """

    tensors: Mapping[Path, ComputedTensor]
    measures: bool = False
    under: FileSystem = LOCAL
    roundings: dict[str, Rounding] = field(default_factory=dict)
    rooms: deque["_Room"] = field(default_factory=deque)

    def stamp(self, path: Path) -> Stamp:
        return self.under.stamp(path)

    def open(self, path: Path) -> ByteSource:
        tensor = self.tensors.get(path)
        return self.under.open(path) if tensor is None else ComputedSource(tensor, self)

    def create(self, path: Path) -> AbstractContextManager[ByteSink]:
        return self.under.create(path)


def machine() -> dict[str, str]:
    """What results depend on: the version of torch, and what it uses of this processor."""
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}


class ComputedSource:
    """A tensor that is computed, open for reading."""

    __slots__ = ("_error", "_factors", "_files", "_number", "_reader", "_room", "_stored", "_tensor", "_vanished")

    def __init__(self, tensor: ComputedTensor, files: ComputedFiles) -> None:
        self._tensor, self._files = tensor, files
        self._reader = FileReader(files.under)
        self._room: _Room | None = None
        self._stored: dict[tuple[ByteRange, ...], torch.Tensor] = {}
        self._factors: dict[Factor, torch.Tensor] = {}
        self._number = -1
        self._error, self._vanished = 0.0, 0

    def read_into(self, window: memoryview, offset: int) -> int:
        tensor = self._tensor
        if offset >= tensor.length:
            return 0
        height, columns = tensor.rows_of_block(_BLOCK), tensor.columns
        size = tensor.length // tensor.elements
        number, start = divmod(offset, height * columns * size)
        count = min(height * columns, tensor.elements - number * height * columns)
        if not start and len(window) >= count * size:
            self._compute(number * height, torch.frombuffer(window, dtype=TORCH_DTYPES[tensor.dtype], count=count))
            done = count * size
        else:
            done = self._part(number, start, count, window)
        if offset + done == tensor.length:
            if self._files.measures:
                self._files.roundings[tensor.key] = Rounding(self._error, self._vanished)
            self.close()  # readers keep files open, and factors can be large
        return done

    def forget(self, offset: int, length: int) -> None:
        """Nothing of it is cached."""

    def close(self) -> None:
        """Give back all that it holds; a later reading begins anew."""
        self._reader.close()
        if self._room is not None:
            self._files.rooms.append(self._room)
        self._room = None
        self._stored.clear()
        self._factors.clear()
        self._number = -1
        self._error, self._vanished = 0.0, 0

    def _part(self, number: int, start: int, count: int, window: memoryview) -> int:
        """Fill ``window`` with the bytes from ``start`` on of a block that it has no room for; how many there are."""
        height = self._tensor.rows_of_block(_BLOCK)
        rounded = self._memory().rounded.view(TORCH_DTYPES[self._tensor.dtype])[:count]
        if number != self._number:
            self._compute(number * height, rounded)
            self._number = number
        part = rounded.view(torch.uint8)[start : start + len(window)]
        torch.frombuffer(window, dtype=torch.uint8, count=len(part)).copy_(part)
        return len(part)

    def _memory(self) -> "_Room":
        if self._room is None:
            try:
                self._room = self._files.rooms.pop()
            except IndexError:
                self._room = _new_room()
        return self._room

    def _compute(self, first: int, rounded: torch.Tensor) -> None:
        """Fill ``rounded`` with the elements from the row ``first`` on."""
        room = self._memory()
        exact = room.exact.view(torch.float64 if self._tensor.is_wide else torch.float32)[: len(rounded)]
        self._before(first * self._tensor.columns, exact, room)
        self._add(first, exact.view(-1, self._tensor.columns))
        _round_into(rounded, exact, room)
        if not all(isfinite(float(bound)) for bound in torch.aminmax(rounded)):
            self._check_finite(first * self._tensor.columns, rounded, exact, room)
        if self._files.measures:
            self._measure(exact, rounded)

    def _before(self, start: int, exact: torch.Tensor, room: "_Room") -> None:
        """Fill ``exact`` with the elements from ``start`` on as they are before anything is added."""
        stop = start + len(exact)
        for piece in self._tensor.pieces:
            begin, end = max(start, piece.start), min(stop, piece.stop)
            if begin < end:
                dtype = TORCH_DTYPES[piece.dtype]
                size = dtype.itemsize
                ranges = sliced(piece.ranges, (begin - piece.start) * size, (end - piece.start) * size)
                self._read(ranges, room.raw)
                exact[begin - start : end - start].copy_(torch.frombuffer(room.raw, dtype=dtype, count=end - begin))

    def _add(self, first: int, exact: torch.Tensor) -> None:
        """Add to ``exact``, rows from ``first`` on, what changes them."""
        last = first + len(exact)
        for term in self._tensor.terms:
            start, stop = max(first, term.row), min(last, term.row + term.rows)
            if start >= stop:
                continue
            rows = exact[start - first : stop - first]
            b = self._factor(term.b)[start - term.row : stop - term.row]
            if term.a is None:
                rows.add_(b, alpha=term.scale)
            else:
                rows.addmm_(b, self._factor(term.a), alpha=term.scale)
            if term.magnitude is not None:
                length = self._factor(term.magnitude)[start - term.row : stop - term.row]
                rows *= length / torch.linalg.vector_norm(rows, dim=1, keepdim=True)

    def _factor(self, factor: Factor) -> torch.Tensor:
        if factor not in self._factors:
            if len(self._factors) >= _KEPT:  # a layer has hundreds of experts
                self._factors.clear()
            self._factors[factor] = taken(self._loaded(factor), factor.region).to(torch.float64).contiguous()
        return self._factors[factor]

    def _loaded(self, factor: Factor) -> torch.Tensor:
        stored = factor.tensor
        if stored.ranges not in self._stored:
            data = bytearray(sum(part.length for part in stored.ranges))
            self._read(stored.ranges, data)
            tensor = torch.frombuffer(data, dtype=TORCH_DTYPES[stored.dtype])
            if not bool(torch.isfinite(tensor).all()):
                raise OutOfRangeError(
                    f"{factor.region.key} in {stored.ranges[0].path} holds numbers that are not finite.",
                    "The training has failed, or the file is damaged: use an adapter of an earlier step.",
                )
            self._stored[stored.ranges] = tensor.view(stored.shape)
        return self._stored[stored.ranges]

    def _read(self, ranges: Iterable[ByteRange], room: bytearray) -> None:
        """Fill the beginning of ``room`` with the bytes of ``ranges``."""
        view, filled = memoryview(room), 0
        for part in ranges:
            done = 0
            while done < part.length:
                rest = view[filled : filled + part.length - done]
                step = self._reader.source(part.path).read_into(rest, part.offset + done)
                if not step:
                    raise ended(part)
                done, filled = done + step, filled + step

    def _check_finite(self, start: int, rounded: torch.Tensor, exact: torch.Tensor, room: "_Room") -> None:
        """Raise OutOfRangeError for a number that was finite and is not after it was computed."""
        tensor, before = self._tensor, torch.empty_like(exact)
        self._before(start, before, room)
        wrong = (~torch.isfinite(rounded) & torch.isfinite(before)).nonzero()
        if len(wrong):
            element = int(wrong[0])
            wider = "bfloat16 or float32, which reach" if tensor.dtype == "F16" else "float32, which reaches"
            raise OutOfRangeError(
                f"Element {start + element} of {tensor.key} was {float(before[element]):g} and would be "
                f"{float(exact[element]):g}, which {tensor.dtype} cannot hold.",
                f"Use --dtype {wider} further (dtype=...).",
            )

    def _measure(self, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        size = exact.abs()
        error = (rounded.to(exact.dtype) - exact).abs_()
        measured = (size > 0) & torch.isfinite(size)
        if bool(measured.any()):
            self._error = max(self._error, float((error[measured] / size[measured]).max()))
        self._vanished += int(((rounded == 0) & measured).sum())


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory for a block: what is read, its elements before they are rounded, and what they are afterwards.

    ``near`` and ``low`` are for rounding sums: what they are in float32, and the last 16 bits of that.
    """

    raw: bytearray
    exact: torch.Tensor
    rounded: torch.Tensor
    near: torch.Tensor
    low: torch.Tensor


def _new_room() -> _Room:
    return _Room(
        bytearray(8 * _BLOCK),
        torch.empty(_BLOCK, dtype=torch.float64),
        torch.empty(_BLOCK, dtype=torch.float64),
        torch.zeros(_BLOCK, dtype=torch.float32),
        torch.zeros(_BLOCK, dtype=torch.int16),
    )


def _round_into(rounded: torch.Tensor, exact: torch.Tensor, room: _Room) -> None:
    """Fill ``rounded`` with ``exact``, rounded once to the nearest, and to even between two.

    torch goes from float64 to 16 bits by way of float32, which rounds twice. That is wrong only where the first step
    lands half-way between two numbers. There, its last bit is made to say whether it was exact ("round to odd": Boldo
    and Melquiond, 2008).
    """
    if exact.dtype != torch.float64 or rounded.dtype.itemsize != 2:
        rounded.copy_(exact)
        return
    padded = -(-len(exact) // _GROUP) * _GROUP
    near, low = room.near[: len(exact)], room.low[:padded]
    near.copy_(exact)
    low.copy_(room.near.view(torch.int32)[:padded])  # this keeps the last 16 bits of each
    halfway = -(1 << 15)
    if rounded.dtype == torch.float16:
        low.bitwise_and_(0xFFF)  # it drops 13 bits, or more of the smallest numbers
        halfway = 0
    lows = low.view(_GROUP, -1)
    [groups] = (lows.amin(0) == halfway).nonzero(as_tuple=True)
    if len(groups):
        places = (groups + torch.arange(0, padded, lows.shape[1])[:, None]).flatten()
        places = places if padded == len(exact) else places[places < len(exact)]
        near[places] = _to_odd(exact[places])
    rounded.copy_(near)


def _to_odd(exact: torch.Tensor) -> torch.Tensor:
    """``exact`` in float32: towards zero, and with an odd last bit unless it is the same number."""
    near = exact.to(torch.float32)
    rest = exact.abs() - near.abs()  # not a number where both are infinite
    return ((near.view(torch.int32) - (rest < 0).int()) | (rest.abs() > 0).int()).view(torch.float32)
