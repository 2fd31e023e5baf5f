"""Computed tensors: rounded once, the same in any windows, and finite or refused."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from internvl_bridge.checkpoint import computed_files
from internvl_bridge.checkpoint.computed_files import ComputedFiles, Rounding, machine
from internvl_bridge.checkpoint.computed_tensors import ComputedTensor, Factor, Piece, Term, computed_tensor
from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.checkpoint.torch_threads import one_thread_each
from internvl_bridge.errors import CheckpointError, OutOfRangeError, UnsupportedModelError
from internvl_bridge.mapping.lora.changes import Replacement, RowChange, TensorChange
from internvl_bridge.mapping.lora.factors import Region
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.source_shards import StoredTensor, open_file

NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def stored(directory: Path, **tensors: torch.Tensor) -> dict[str, StoredTensor]:
    path = directory / "tensors.safetensors"
    save_file(tensors, path)
    return dict(open_file(path).tensors)


def target(tensor: StoredTensor) -> TargetTensor:
    return TargetTensor(tensor.dtype, tensor.shape, tensor.ranges)


def read(tensor: ComputedTensor, windows: Sequence[int] = (1 << 22,), *, measures: bool = False) -> ComputedFiles:
    """Read ``tensor`` in ``windows`` of these sizes, again and again; the files, with what was read as their rooms."""
    files = ComputedFiles({tensor.path: tensor}, measures)
    source = files.open(tensor.path)
    data, number = bytearray(tensor.length + 1), 0
    view, done = memoryview(data), 0
    try:
        while step := source.read_into(view[done : done + windows[number % len(windows)]], done):
            done, number = done + step, number + 1
    finally:
        source.close()
    assert done == tensor.length
    READ[tensor.key] = torch.frombuffer(data, dtype=TORCH_DTYPES[tensor.dtype], count=tensor.elements)
    return files


READ: dict[str, torch.Tensor] = {}


def computed(tensor: ComputedTensor, windows: Sequence[int] = (1 << 22,)) -> torch.Tensor:
    read(tensor, windows)
    return READ[tensor.key].view(tensor.shape)


def change(w: StoredTensor, scale: float = 2.0, magnitude: Region | None = None) -> TensorChange:
    """W + s B A for the stored tensors b and a of rank 4."""
    rows, columns = w.shape
    b, a = Region("b", (0, rows), (0, 4)), Region("a", (0, 4), (0, columns))
    return TensorChange((), (RowChange(0, scale, b, a, magnitude),))


def nearest(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``exact`` in ``dtype``, by looking at both neighbours and, half-way between them, at their last bits."""
    first = exact.to(dtype)
    bits = first.view(BITS[dtype.itemsize])
    candidates = torch.stack([first, (bits + 1).view(dtype), (bits - 1).view(dtype)])
    distance = (candidates.double() - exact).abs().nan_to_num(torch.inf)
    is_odd = candidates.view(BITS[dtype.itemsize]) & 1
    best = (distance.min(0).values == distance).double() * (2 - is_odd)
    return candidates.gather(0, best.argmax(0, keepdim=True))[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.002, 0.1])
def test_a_sum_is_the_one_in_float64_rounded_once(dtype: torch.dtype, size: float, tmp_path: Path):
    torch.manual_seed(0)
    w, a, b = (torch.randn(700, 900) * 0.02).to(dtype), torch.randn(4, 900) * size, torch.randn(700, 4) * size
    tensors = stored(tmp_path, w=w, a=a, b=b)
    tensor = computed_tensor("w", NAMES[dtype], target(tensors["w"]), [(0, change(tensors["w"], 1 / 3))], [tensors])
    exact = w.double() + (b.double() @ a.double()) / 3
    made = computed(tensor)
    assert torch.equal(made, computed(tensor, [1 << 16]))
    if dtype == torch.float64:
        assert (made - exact).abs().max() < 1e-15
    else:
        assert torch.equal(made, nearest(exact, dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float64_is_rounded_once_where_float32_is_half_way(dtype: torch.dtype, tmp_path: Path):
    one = torch.ones(3, dtype=dtype)
    step = float(torch.finfo(dtype).eps)
    exact = torch.tensor([1 + step / 2 + 2**-40, 1 + step / 2 - 2**-40, 1 + step / 2, 1 + step * 1.5, -1 - step / 2])
    exact = torch.cat([exact.double(), torch.tensor([1 + step / 2 + 2**-40, torch.inf], dtype=torch.float64)])
    exact[0], exact[1] = 1 + step / 2 + 2**-40, 1 + step / 2 - 2**-40
    tensors = stored(tmp_path, w=exact)
    made = computed(computed_tensor("w", NAMES[dtype], target(tensors["w"])))
    expected = [1 + step, 1, 1, 1 + 2 * step, -1, 1 + step, torch.inf]
    assert made.tolist() == expected
    assert one.dtype == made.dtype


LARGEST = {torch.bfloat16: 3.3e38, torch.float16: 65_500.0}


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_any_number_is_rounded_to_the_nearest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: torch.dtype
):
    tiny = float(torch.finfo(dtype).tiny)
    numbers = st.floats(-LARGEST[dtype], LARGEST[dtype]) | st.floats(-4 * tiny, 4 * tiny)
    exact = torch.tensor(data.draw(st.lists(numbers, min_size=1, max_size=40)), dtype=torch.float64)
    exact += exact.to(dtype).double() * data.draw(st.sampled_from([0.0, 2**-9, 2**-12, 2**-30]))
    exact = exact.clamp(-LARGEST[dtype], LARGEST[dtype])
    tensors = stored(tmp_path_factory.mktemp("numbers"), w=exact)
    made = computed(computed_tensor("w", NAMES[dtype], target(tensors["w"])))
    assert torch.equal(made, nearest(exact, dtype))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5), st.sampled_from([1 << 9, 1 << 12]))
def test_windows_do_not_change_what_is_read(tmp_path_factory: pytest.TempPathFactory, windows: list[int], block: int):
    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("windows")
    w, a, b = torch.randn(37, 101).bfloat16(), torch.randn(4, 101), torch.randn(37, 4)
    tensors = stored(directory, w=w, a=a, b=b)
    tensor = computed_tensor("w", "BF16", target(tensors["w"]), [(0, change(tensors["w"]))], [tensors])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computed_files, "_BLOCK", block)
        made = computed(tensor, [2 * window for window in windows])
        assert torch.equal(made, computed(tensor))
    assert torch.equal(made, nearest(w.double() + 2 * (b.double() @ a.double()), torch.bfloat16))


def test_rows_get_the_length_of_their_magnitude(tmp_path: Path):
    torch.manual_seed(2)
    w, a, b, m = torch.randn(6, 5), torch.randn(4, 5), torch.randn(6, 4), torch.rand(6) + 1
    tensors = stored(tmp_path, w=w, a=a, b=b, m=m)
    moved = change(tensors["w"], magnitude=Region("m", (0, 6), (0, 1)))
    made = computed(computed_tensor("w", "F32", target(tensors["w"]), [(0, moved)], [tensors]))
    exact = w.double() + 2 * (b.double() @ a.double())
    expected = m.double()[:, None] * exact / exact.norm(dim=1, keepdim=True)
    assert torch.equal(made, nearest(expected, torch.float32))


def test_elements_are_replaced_before_rows_are_added(tmp_path: Path):
    w, other = torch.arange(20.0).view(5, 4), 100 + torch.arange(20.0, dtype=torch.float64)
    tensors = stored(tmp_path, w=w, other=other, a=torch.ones(4, 4), b=torch.ones(5, 4))
    replaced = [Replacement(3, 9, "other", 10), Replacement(5, 6, "other", 0), Replacement(18, 20, "other", 1)]
    moved = TensorChange(tuple(replaced), change(tensors["w"]).rows)
    tensor = computed_tensor("w", "F32", target(tensors["w"]), [(0, moved)], [tensors])
    expected = w.flatten().clone()
    expected[3:9], expected[5], expected[18:20] = other[10:16].float(), 100.0, other[1:3].float()
    assert torch.equal(computed(tensor).flatten(), expected + 8)
    assert [(piece.start, piece.stop) for piece in tensor.pieces] == [*pairwise([0, 3, 5, 6, 9, 18, 20])]


def test_what_is_only_replaced_is_moved(tmp_path: Path):
    tensors = stored(tmp_path, w=torch.zeros(6), other=torch.ones(6), small=torch.ones(6).half())
    moved = TensorChange((Replacement(2, 4, "other", 0),), ())
    tensor = computed_tensor("w", "F32", target(tensors["w"]), [(0, moved)], [tensors])
    assert tensor.is_moved
    assert [part.length for part in tensor.target.ranges] == [8, 8, 8]
    cast = TensorChange((Replacement(2, 4, "small", 0),), ())
    assert not computed_tensor("w", "F32", target(tensors["w"]), [(0, cast)], [tensors]).is_moved


@pytest.mark.parametrize(("value", "dtype"), [(70_000.0, "F16"), (3.4e38, "BF16")])
def test_a_number_that_a_dtype_cannot_hold_is_refused(value: float, dtype: str, tmp_path: Path):
    w = torch.zeros(3, 2)
    w[1, 1] = value
    tensors = stored(tmp_path, w=w)
    with pytest.raises(OutOfRangeError, match=re.escape(f"Element 3 of w was {value:g} and would be {value:g}, which")):
        read(computed_tensor("w", dtype, target(tensors["w"])))


def test_factors_that_are_not_numbers_are_refused_and_weights_are_kept(tmp_path: Path):
    w = torch.tensor([[torch.inf, torch.nan, 1.0]])
    tensors = stored(tmp_path, w=w, a=torch.zeros(4, 3), b=torch.zeros(1, 4), n=torch.full((1, 4), torch.nan))
    made = computed(computed_tensor("w", "BF16", target(tensors["w"])))
    assert torch.equal(made.nan_to_num(7), w.bfloat16().nan_to_num(7))
    wrong = {**tensors, "b": tensors["n"]}
    with pytest.raises(OutOfRangeError, match=r"b in .*tensors\.safetensors holds numbers that are not finite"):
        read(computed_tensor("w", "F32", target(tensors["w"]), [(0, change(tensors["w"]))], [wrong]))


def test_what_rounding_did_is_measured(tmp_path: Path):
    w = torch.tensor([1.0, 1 + 2**-9, 1e-10, 0.0, -1e-10])
    tensor = computed_tensor("w", "F16", target(stored(tmp_path, w=w)["w"]))
    files = read(tensor, [2], measures=True)
    assert files.roundings == {"w": Rounding(1.0, 2)}
    tensor = computed_tensor("w", "BF16", target(stored(tmp_path, w=w[:2].contiguous())["w"]))
    assert read(tensor, measures=True).roundings["w"].error == pytest.approx(2**-9 / (1 + 2**-9))


def test_a_file_that_ends_early_is_refused(tmp_path: Path):
    tensor = computed_tensor("w", "F16", target(stored(tmp_path, w=torch.ones(100))["w"]))
    (tmp_path / "tensors.safetensors").write_bytes((tmp_path / "tensors.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="ended before byte"):
        read(tensor)


def test_rows_that_no_model_has_are_refused():
    region = Region("b", (0, 1), (0, 1))
    factor = Factor(TargetTensor("F32", (1, 1), ()), region)
    tensor = ComputedTensor(
        "w", "F32", (1, 1 << 30), (Piece(0, 1 << 30, "F32", ()),), (Term(0, 1.0, factor, factor, None),)
    )
    with pytest.raises(UnsupportedModelError, match="w has rows of 1073741824 elements"):
        tensor.rows_of_block(1 << 20)


def test_torch_gets_its_threads_back_from_the_last_who_wanted_one():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    first, second = one_thread_each(), one_thread_each()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_torch_computes_on_one_thread_only_meanwhile():
    before = torch.get_num_threads()
    with one_thread_each():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert machine()["torch"] == torch.__version__
