"""Our Inception-v3 equals torch-fidelity 0.4.0's on the same random weights, and clean-fid 0.1.35's resizing."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fooddit.evaluation.features import inception_features, resize_clean
from fooddit.models.inception import inception, load_inception
from fooddit.models.inception import resize as resize_as_tensorflow
from parity.published_metrics import cleanfid, torch_fidelity
from tests.models.inception_weights import made_pictures, made_tensors

GOLDEN = Path(__file__).parents[1] / "tests/models/golden/inception.npz"
interpolate = torch_fidelity.interpolate_compat_tensorflow.interpolate_bilinear_2d_like_tensorflow1x


@pytest.fixture(scope="module")
def tensors():
    return made_tensors()


@pytest.fixture(scope="module")
def reference(tensors):
    """torch-fidelity's extractor with made weights in place of the download; its classifier's are zero."""
    module = torch_fidelity.feature_extractor_inceptionv3
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: state)
        return module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])


@pytest.fixture(scope="module")
def weights_file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(tensors, path)
    return path


def expected(reference, images):
    with torch.no_grad():
        return reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))[0].numpy()


def close(found, wanted):
    assert np.abs(wanted).max() > 0.3
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [(64, 64), (299, 299), (320, 420)], ids=str)
def test_features_equal_torch_fidelity(reference, weights_file, size):
    images = made_pictures(*size)
    close(inception_features(weights_file, batch_size=2)(images), expected(reference, images))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (299, 299), (512, 300)], ids=str)
def test_resizing_equals_torch_fidelity(size):
    images = made_pictures(*size).astype(np.float32)
    wanted = interpolate(torch.from_numpy(images.transpose(0, 3, 1, 2)), size=(299, 299), align_corners=False)
    np.testing.assert_allclose(resize_as_tensorflow(images), wanted.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (299, 299), (512, 300)], ids=str)
def test_clean_resizing_equals_clean_fid(size):
    images = made_pictures(*size)
    resizer = cleanfid.resize.build_resizer("clean")
    np.testing.assert_array_equal(resize_clean(images), np.stack([resizer(image) for image in images]))


def test_the_golden_file_is_what_torch_fidelity_gives(reference):
    with np.load(GOLDEN) as golden:
        close(golden["features"], expected(reference, made_pictures(64, 64))[:, ::8])


def test_every_tensor_of_the_reference_is_read(reference, weights_file):
    names = {name for name, _ in reference.named_parameters()} | {name for name, _ in reference.named_buffers()}
    read = {name for name in names if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    assert read == {name for name in made_tensors() if not name.endswith("num_batches_tracked")}
    params, _ = load_inception(weights_file)
    # The file as torch writes it is read, too.
    torch.save(reference.state_dict(), weights_file.with_suffix(".pth"))
    again, _ = load_inception(weights_file.with_suffix(".pth"))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, inception().shapes)
