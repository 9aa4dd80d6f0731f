import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from fooddit.models.weights import load_weights, resolve_weights, save_weights

PARAMS = {
    "stem": {"kernel": np.linspace(-2, 2, 24).reshape(2, 3, 4), "bias": np.zeros(4)},
    "mean": np.array([0.5, -0.25]),
}


def test_a_nested_tree_comes_back_in_float32_with_its_description(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, PARAMS, {"model": "Toy", "names": ["饺子"]})
    params, description, digest = load_weights(str(path))
    assert description == {"model": "Toy", "names": ["饺子"]}
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert params.keys() == PARAMS.keys() and params["stem"].keys() == PARAMS["stem"].keys()
    assert params["stem"]["kernel"].dtype == np.float32
    # Stored as float16: eleven bits of each value.
    np.testing.assert_allclose(params["stem"]["kernel"], PARAMS["stem"]["kernel"], rtol=2**-11)
    np.testing.assert_array_equal(params["mean"], PARAMS["mean"])


def test_arrays_in_any_memory_layout_are_saved_by_value(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_weights(tmp_path / "a.safetensors", {"kernel": turned}, {}, dtype=np.float32)
    np.testing.assert_array_equal(load_weights(str(tmp_path / "a.safetensors"))[0]["kernel"], turned)


def test_the_same_weights_have_the_same_hash_and_others_another(tmp_path):
    for name, params in (("a", PARAMS), ("b", PARAMS), ("c", {**PARAMS, "mean": np.array([0.5, 0.5])})):
        save_weights(tmp_path / f"{name}.safetensors", params, {})
    a, b, c = (load_weights(str(tmp_path / f"{name}.safetensors"))[2] for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("path", ["none.safetensors", "builtin:none", "."])
def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(FileNotFoundError, match="no such weights .*expected a .safetensors file or builtin:NAME"):
        load_weights(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights at all")
    save_file({"a": np.zeros(2)}, str(tmp_path / "foreign.safetensors"))
    for name in ("text", "foreign"):
        with pytest.raises(ValueError, match=f"{name}.safetensors: expected weights written by fooddit"):
            load_weights(str(tmp_path / f"{name}.safetensors"))


def test_what_ships_is_small():
    shipped = resolve_weights("builtin:scenes").parent.glob("*.safetensors")
    sizes = {path.stem: path.stat().st_size for path in shipped}
    assert sizes.keys() == {"scenes", "dishes", "scene_reader", "style_reader"}
    assert max(sizes.values()) <= 2_000_000, sizes
