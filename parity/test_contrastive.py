"""Our sigmoid loss equals transformers 5.24.0's SiglipModel and a formula in torch 2.13.0, with all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from torch.nn import functional

from fooddit.models.contrastive_loss import sigmoid_loss
from fooddit.models.eclip_folder import open_eclip
from tests.models.eclip_cases import CASES, inputs, write

BATCH, EMBED = 12, 7


def no_names(count: int) -> dict:
    return {name: np.full((count, 1), -1, np.int32) for name in ("image_names", "text_names")}


def test_the_loss_of_transformers(tmp_path):
    folder = write("siglip", tmp_path / "published")
    encoder, x = open_eclip(str(folder)), inputs("siglip")
    pixels = np.concatenate([x["pixels"], 0.3 * x["pixels"][:1]])
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    with torch.no_grad():
        given = {"pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2), "interpolate_pos_encoding": True}
        expected = model(input_ids=torch.from_numpy(x["ids"]).long(), **given, return_loss=True).loss
    module = encoder.bind(encoder.load())
    image = module.encode_image(jnp.asarray(pixels)).pooled
    text = module.encode_text(jnp.asarray(x["ids"]), jnp.asarray(x["mask"])).pooled
    found = sigmoid_loss(image, text, *module.scale_and_bias(), **no_names(3)).loss
    assert CASES["siglip"]["model_type"] == "siglip" and expected > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_formula_in_torch_with_pairs_left_out():
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(BATCH, EMBED)).astype(np.float32) for _ in range(2))
    names = {
        "image_names": rng.integers(-1, 15, size=(BATCH, 3)).astype(np.int32),
        "text_names": rng.integers(-1, 15, size=(BATCH, 2)).astype(np.int32),
    }
    scale, bias = np.float32(1.7), np.float32(-0.6)
    ours = jax.value_and_grad(lambda *p: tuple(sigmoid_loss(*p, **names)), argnums=(0, 1, 2, 3), has_aux=True)
    (loss, ignored), gradients = ours(*map(jnp.asarray, (image, text, scale, bias)))

    theirs = [torch.tensor(value, requires_grad=True) for value in (image, text, scale, bias)]
    logits = theirs[2] * theirs[0] @ theirs[1].T + theirs[3]
    labels = torch.eye(BATCH)
    of_images, of_texts = (names[name].tolist() for name in ("image_names", "text_names"))
    common = [[bool(set(i) & set(t) - {-1}) for t in of_texts] for i in of_images]
    kept = (~torch.tensor(common)).float().fill_diagonal_(1)
    terms = functional.binary_cross_entropy_with_logits(logits, labels, weight=kept, reduction="sum")
    expected = terms / BATCH
    expected.backward()
    assert 0 < float(ignored) == int((kept == 0).sum()) / BATCH
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
    for found, parameter in zip(gradients, theirs):
        np.testing.assert_allclose(found, parameter.grad, rtol=0, atol=1e-6 * max(parameter.grad.abs().max(), 1))
