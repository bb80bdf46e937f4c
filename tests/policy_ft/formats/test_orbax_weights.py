"""JAX checkpoints as orbax writes them: goldens/make_orbax.py wrote two with orbax itself."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import torch
from safetensors.torch import load_file

from policy_ft.errors import UserError
from policy_ft.formats.orbax.orbax_weights import OrbaxWeights

GOLDENS = Path(__file__).parents[2] / "goldens"
RELEASED = GOLDENS / "orbax_pi0" / "params"  # float32, every array in one piece
TRAINED = GOLDENS / "orbax_pi05" / "params"  # bfloat16, pieces of two devices, paths end in value
TRAINED_DEPTH, TRAINED_VOCABULARY = 1, 32  # as make_orbax.py cut it

HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight"
STATE_PROJ = "params.state_proj.kernel"

Arrays = dict[str, np.ndarray]


def place(params: Path, path: str = "") -> dict:
    base = {"driver": "file", "path": f"{params}/"}
    return {"driver": "ocdbt", "base": base, "path": path}


def stored_arrays(params: Path) -> Arrays:
    """Key -> array of an orbax directory, by a reader that knows nothing of its tree."""
    names = tensorstore.KvStore.open(place(params)).result().list().result()
    keys = sorted({name.decode().rpartition("/")[0] for name in names})
    root = {key: {"driver": "zarr", "kvstore": place(params, f"{key}/")} for key in keys}
    return {key: tensorstore.open(spec).result().read().result() for key, spec in root.items()}


def write_metadata(params: Path, are_zeros_stored: bool = True) -> None:
    content = {"store_array_data_equal_to_fill_value": are_zeros_stored}
    (params / "_METADATA").write_text(json.dumps(content))


def create(params: Path, key: str, shape: tuple[int, ...], dtype: str, **kwargs: object) -> object:
    spec = {"driver": "zarr", "kvstore": place(params, f"{key}/"), **kwargs}
    spec["store_data_equal_to_fill_value"] = True  # as orbax does
    return tensorstore.open(spec, shape=shape, dtype=dtype, create=True).result()


def write(params: Path, arrays: Mapping[str, np.ndarray], **kwargs: object) -> Path:
    params.mkdir()
    write_metadata(params)
    for key, array in arrays.items():
        store = create(params, key, array.shape, array.dtype.name, **kwargs)
        store.write(array).result()
    return params


def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / f"{name}.safetensors")


def with_projector() -> tuple[Arrays, dict[str, torch.Tensor]]:
    """The released checkpoint and what it holds; its projector, which is zero, made random."""
    arrays, tensors = stored_arrays(RELEASED), golden("pi0")
    weight = torch.randn(tensors[PROJECTOR].shape, generator=torch.Generator().manual_seed(0))
    arrays["params.PaliGemma.img.head.kernel"] = weight.T.numpy()
    return arrays, {**tensors, PROJECTOR: weight}


def golden_of_trained() -> dict[str, torch.Tensor]:
    """The pi0.5 golden, cut and cast as make_orbax.py does."""
    tensors = golden("pi05")
    tensors[HEAD] = tensors[HEAD][:TRAINED_VOCABULARY]
    beyond = [f".layers.{layer}." for layer in range(TRAINED_DEPTH, 4)]
    kept = {name for name in tensors if not any(part in name for part in beyond)}
    return {name: tensors[name].to(torch.bfloat16) for name in kept}


def assert_holds(params: Path, expected: Mapping[str, torch.Tensor]) -> None:
    with OrbaxWeights(params) as weights:
        assert sorted(weights.keys()) == sorted(expected)
        for name in sorted(expected):  # neither in the order of the arrays nor of the layers
            tensor, header = weights.get_tensor(name), weights.get_slice(name)
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name
            assert header.get_shape() == list(tensor.shape), name
            kind = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
            assert kind[header.get_dtype()] == tensor.dtype, name


def test_a_released_checkpoint_holds_the_tensors_of_the_converted_file_bit_for_bit():
    assert_holds(RELEASED, golden("pi0"))


def test_a_trained_checkpoint_sharded_over_devices_holds_them_in_bfloat16():
    assert_holds(TRAINED, golden_of_trained())


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_pieces_of_one_layer_of_several_and_of_all_give_the_same_tensors(tmp_path, chunk):
    arrays, expected = with_projector()
    params = write(tmp_path / "params", {})
    for key, array in arrays.items():
        chunks = (min(chunk, array.shape[0]), *array.shape[1:])
        store = create(params, key, array.shape, "float32", metadata={"chunks": chunks})
        store.write(array).result()
    assert_holds(params, expected)


def test_zarr_3_and_float16_are_read_too(tmp_path):
    arrays, expected = with_projector()
    halved = {key: array.astype(np.float16) for key, array in arrays.items()}
    params = write(tmp_path / "params", halved, driver="zarr3")
    assert_holds(params, {name: tensor.half() for name, tensor in expected.items()})


def test_a_piece_that_is_absent_is_zero_only_where_the_checkpoint_leaves_zeros_out(tmp_path):
    arrays = stored_arrays(RELEASED)
    absent = arrays.pop(STATE_PROJ)
    params = write(tmp_path / "params", arrays)
    create(params, STATE_PROJ, absent.shape, "float32")
    with OrbaxWeights(params) as weights, pytest.raises(UserError, match="download it again"):
        weights.get_tensor("state_proj.weight")
    write_metadata(params, are_zeros_stored=False)
    with OrbaxWeights(params) as weights:
        assert not weights.get_tensor("state_proj.weight").any()


def test_tensors_outlive_the_weights_they_come_from():
    with OrbaxWeights(RELEASED) as weights:
        tensor = weights.get_tensor("state_proj.weight")
    del weights
    assert torch.equal(tensor, golden("pi0")["state_proj.weight"])


def rename(old: str, new: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[f"params.{new}"] = arrays.pop(f"params.{old}")

    return change


def drop(*starts: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        for key in list(arrays):
            if key.startswith(tuple(f"params.{start}" for start in starts)):
                del arrays[key]

    return change


def alter(key: str, function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[f"params.{key}"] = function(arrays[f"params.{key}"])

    return change


def add(key: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[key] = np.ones((4, 8), np.float32)

    return change


GATES = "PaliGemma.llm.layers.mlp.gating_einsum"
WRONG_TREES: dict[str, tuple[Callable[[Arrays], None], tuple[str, ...]]] = {
    "missing leaf": (
        drop("state_proj.bias"),
        ("no state_proj/bias", "50 leaves of pi0", "Use a complete checkpoint"),
    ),
    "renamed leaf": (
        rename("state_proj.kernel", "state_proj.kernels"),
        ("no state_proj/kernel", "unknown leaves state_proj/kernels", "'state_proj/kernel'"),
    ),
    "no action expert": (
        drop("action", "state", "PaliGemma.llm.layers.mlp_1", "PaliGemma.llm.final_norm_1"),
        ("the 50 leaves of pi0", "and 5 more", "Use a complete checkpoint of pi0 or pi0.5"),
    ),
    "leaf beside params": (
        add("opt_state.count"),
        ("the unknown leaves opt_state/count", "holds its parameters alone"),
    ),
    "value at the end of some": (
        rename("state_proj.bias", "state_proj.bias.value"),
        ("unknown leaves state_proj/bias/value", "holds its parameters alone"),
    ),
    "adapters": (
        add(f"params.{GATES}_lora_a"),
        ("low-rank adapters PaliGemma/llm/layers/mlp/gating_einsum_lora_a", "Merge them in openpi"),
    ),
    "adapters of attention": (
        add("params.PaliGemma.llm.layers.attn.q_einsum.lora_b"),
        ("low-rank adapters", "alpha", "save the params without them"),
    ),
    "wrong number of axes": (
        alter(GATES, lambda gates: gates[:, 0]),
        ("shape [4, 64, 128]", "[layer, 2 parts, width, hidden]", "wrote"),
    ),
    "three of two": (
        alter(GATES, lambda gates: np.repeat(gates, 2, axis=1)),
        ("shape [4, 4, 64, 128]", "[layer, 2 parts, width, hidden]", "wrote"),
    ),
    "fewer layers": (
        alter("PaliGemma.llm.layers.mlp.linear", lambda linear: linear[:3]),
        (
            "mlp/linear: found 3 layers; expected 4 as in PaliGemma/llm/layers/mlp/gating_einsum",
            "wrote",
        ),
    ),
    "integers": (
        alter("action_in_proj.bias", lambda bias: bias.astype(np.int32)),
        ("action_in_proj/bias: found int32", "'bfloat16'", "wrote"),
    ),
}


@pytest.mark.parametrize("case", WRONG_TREES)
def test_a_wrong_tree_is_refused_with_the_leaf_and_the_remedy(tmp_path, case):
    change, words = WRONG_TREES[case]
    arrays = stored_arrays(RELEASED)
    change(arrays)
    with pytest.raises(UserError) as error:
        OrbaxWeights(write(tmp_path / "params", arrays))
    for word in words:
        assert word in str(error.value)


def cut(params: Path, path: Path) -> None:
    os.truncate(params / path, (params / path).stat().st_size // 2)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing there": (shutil.rmtree, "Copy the whole directory again"),
    "unfinished": (lambda params: (params / "manifest.ocdbt").unlink(), "a step whose save was"),
    "manifest cut": (lambda params: cut(params, Path("manifest.ocdbt")), "download it again"),
    "index gone": (lambda params: shutil.rmtree(params / "d"), "download it again"),
    "no metadata": (lambda params: (params / "_METADATA").unlink(), "a file is missing"),
    "no mapping": (lambda params: (params / "_METADATA").write_text("[]"), "download it again"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_directory_is_refused_with_the_remedy(tmp_path, case):
    damage, remedy = DAMAGES[case]
    params = tmp_path / "params"
    shutil.copytree(RELEASED, params)
    damage(params)
    with pytest.raises(UserError, match=remedy):
        OrbaxWeights(params)


def test_cut_data_leave_the_headers_readable_and_are_refused_when_read(tmp_path):
    params = tmp_path / "params"
    shutil.copytree(RELEASED, params)
    largest = max(params.rglob("d/*"), key=lambda path: path.stat().st_size)
    cut(params, largest.relative_to(params))
    with OrbaxWeights(params) as weights:
        assert weights.get_slice(HEAD).get_shape() == [512, 64]
        with pytest.raises(UserError, match="download it again"):
            [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118


def test_without_a_place_for_temporary_files_the_remedy_is_tmpdir(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with (
        OrbaxWeights(RELEASED) as weights,
        pytest.raises(UserError, match=r"TMPDIR: .*gone.*8192 bytes .*Set it to a directory"),
    ):
        weights.get_tensor("state_proj.weight")


def test_without_tensorstore_the_remedy_is_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(UserError, match=r"pip install 'policy_ft\[orbax\]'"):
        OrbaxWeights(RELEASED)
