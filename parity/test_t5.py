"""Our T5 equals transformers 5.24.0's (torch 2.13.0) on the same random weights: features, logits, token ids.

`python parity/test_t5.py` writes the golden files that the suite compares with, from transformers' features.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention as TorchAttention

from fooddit.config import build
from fooddit.data.scenes import prompt, sample_spec
from fooddit.models.module import define
from fooddit.models.t5 import T5Config, relative_buckets
from fooddit.models.t5_decoder import T5
from fooddit.models.t5_folder import open_t5
from fooddit.tasks.span_corruption import SpanCorruption, SpanExperiment
from parity import t5_made

GOLDEN = Path(__file__).parents[1] / "tests/models/golden/t5.npz"
ENCODERS = {
    "t5": transformers.T5EncoderModel,
    "mt5": transformers.MT5EncoderModel,
    "umt5": transformers.UMT5EncoderModel,
}
WHOLE = {
    "t5": transformers.T5ForConditionalGeneration,
    "mt5": transformers.MT5ForConditionalGeneration,
    "umt5": transformers.UMT5ForConditionalGeneration,
}


def theirs(folder, kind: str, dtype=torch.float32) -> np.ndarray:
    """The reference's features, zero at padding."""
    model, notes = ENCODERS[t5_made.KINDS[kind][0]].from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["mismatched_keys"]
    ids, mask = (torch.from_numpy(x) for x in t5_made.inputs())
    with torch.no_grad():
        features = model.eval()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return features.float().numpy() * mask[..., None].numpy()


def ours(folder, dtype: str = "float32") -> np.ndarray:
    encoder = open_t5(str(folder), t5_made.LENGTH, dtype)
    ids, mask = t5_made.inputs()
    features = jax.jit(lambda params: encoder.bind(params)(ids, mask))(encoder.load())
    assert features.dtype == dtype
    return np.asarray(features, np.float32) * mask[..., None]


@pytest.mark.parametrize("kind", t5_made.KINDS)
@pytest.mark.parametrize("shard_bytes", [5 << 30, 20_000], ids=["one file", "shards"])
def test_encoder_equals_transformers(tmp_path, kind, shard_bytes):
    folder = t5_made.write(tmp_path / kind, kind, shard_bytes=shard_bytes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_bytes < 1e6)
    expected = theirs(folder, kind)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours(folder), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(GOLDEN)[kind], expected, atol=1e-5)


@pytest.mark.parametrize("kind", t5_made.KINDS)
def test_a_folder_that_transformers_wrote_is_read(tmp_path, kind):
    """With its own settings, which leave out or add some, and its own choice among the names of tied tensors."""
    made = t5_made.write(tmp_path / "made", kind)
    for name, classes in (("encoder", ENCODERS), ("whole", WHOLE)):
        classes[t5_made.KINDS[kind][0]].from_pretrained(made).save_pretrained(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_bytes((made / "tokenizer.json").read_bytes())
        np.testing.assert_allclose(ours(tmp_path / name), theirs(made, kind), atol=1e-5)


@pytest.mark.parametrize("kind", ["t5-v1_0", "t5-v1_1", "umt5"])
def test_encoder_and_decoder_equal_transformers(tmp_path, kind):
    """Those that we train and export; mT5's output is another one."""
    folder, config = t5_made.write(tmp_path / kind, kind), t5_made.KINDS[kind][1]
    ids, mask = t5_made.inputs()
    target = np.random.default_rng(2).integers(3, config.vocabulary, size=(len(ids), 30)).astype(np.int32)
    model = WHOLE[t5_made.KINDS[kind][0]].from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask).long(),
            labels=torch.from_numpy(target).long(),
        ).logits.numpy()
    definition = define(lambda rngs: T5(config, rngs=rngs))
    params = jax.tree.map(jnp.asarray, t5_made.weights(config))
    found = jax.jit(lambda p: definition.bind(p)(ids, mask, target))(params)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("buckets, max_distance", [(32, 128), (8, 16), (64, 500), (32, 100)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_transformers(buckets, max_distance, bidirectional):
    config = T5Config(buckets=buckets, max_distance=max_distance)
    distance = torch.arange(600)[None, :] - torch.arange(600)[:, None]
    expected = TorchAttention._relative_position_bucket(distance, bidirectional, buckets, max_distance)
    np.testing.assert_array_equal(relative_buckets(600, config, bidirectional=bidirectional), expected.numpy())


@pytest.mark.parametrize("kind", ["t5-v1_1", "umt5"])
def test_bfloat16_stands_where_float16_overflows(tmp_path, kind):
    folder = t5_made.write(tmp_path / kind, kind, feed_forward_gain=300.0)
    expected = theirs(folder, kind)
    error = lambda found: np.linalg.norm(found - expected) / np.linalg.norm(expected)  # noqa: E731
    assert np.isnan(theirs(folder, kind, torch.float16)).any()
    # The reference's residual stream is bfloat16, ours float32.
    assert error(ours(folder, "bfloat16")) < min(0.02, error(theirs(folder, kind, torch.bfloat16)))
    np.testing.assert_allclose(ours(folder), expected, atol=2e-5)


@pytest.mark.parametrize("own_bias, kind", [(True, "umt5"), (False, "t5")])
def test_a_folder_of_ours_is_read_by_transformers(tmp_path, own_bias, kind):
    """What `main.py --config=configs/t5.py --export` writes: token ids and features, in Chinese and English."""
    model = {
        "vocabulary": 800,
        "width": 32,
        "depth": 2,
        "decoder_depth": 1,
        "heads": 2,
        "bias_in_every_layer": own_bias,
    }
    values = {"task": "span_corruption", "model": model, "data": {"source": "scenes:16"}}
    task = SpanCorruption(build(SpanExperiment, values))
    task.export(jax.device_get(task.init(jax.random.key(3))), tmp_path / "t5")
    encoder = open_t5(str(tmp_path / "t5"), 40, "float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "t5")
    captions = [prompt(sample_spec(9, i), language) for i in range(3) for language in ("en", "zh")] + ["龘 crêpe  🍅"]
    given = tokenizer(captions, padding="max_length", truncation=True, max_length=40, return_tensors="pt")
    ids, mask = (np.stack(x) for x in zip(*map(encoder.tokenize, captions)))
    np.testing.assert_array_equal(ids, given["input_ids"].numpy())
    np.testing.assert_array_equal(mask, given["attention_mask"].numpy() == 1)
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids][-1] == "龘crêpe 🍅"
    with torch.no_grad():
        expected = ENCODERS[kind].from_pretrained(tmp_path / "t5").eval()(**given).last_hidden_state.numpy()
    found = jax.jit(lambda params: encoder.bind(params)(ids, mask))(encoder.load())
    np.testing.assert_allclose(np.asarray(found)[mask], expected[mask], atol=1e-5)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = {kind: theirs(t5_made.write(Path(folder) / kind, kind), kind) for kind in t5_made.KINDS}
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **made)
