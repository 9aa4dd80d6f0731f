"""The torch code in docs/examples, run on folders that `fooddit export` wrote, equals our model (torch 2.13.0)."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from configs import stage1, stage2
from fooddit.cli import main
from fooddit.config import build, to_dict
from fooddit.models.text_to_image import define_model
from fooddit.models.towers import TowerWidths
from fooddit.tasks.denoise import Denoise
from fooddit.tasks.denoise_step import DenoiseExperiment
from fooddit.training import loop
from fooddit.training.checkpoint import Checkpointer, load_parameters

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
BATCH, TOKENS, TOLERANCE = 3, 20, 1e-4
WIDTHS = TowerWidths({"t5": 7, "eclip": 5}, {"t5": 24, "eclip": 20}, pooled=16, patches=9, patch=28)
FEATURES = 32
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def examples():
    """(torch_dit, torch_conditions), imported as a script beside them would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("torch_dit"), importlib.import_module("torch_conditions")


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def seen(length: int) -> np.ndarray:
    """The last example has nothing."""
    return np.arange(length) < np.array([[length], [length // 2], [0]])


def picture(features: int) -> dict:
    """Noisy tokens with padding, at positions that are no whole numbers."""
    return {
        "tokens": normal(BATCH, TOKENS, features),
        "timestep": np.array([0.25, 0.625, 0.875], np.float32),
        "positions": rng.uniform(-3, 9, size=(TOKENS, 2)).astype(np.float32),
        "mask": np.arange(TOKENS) < np.array([[TOKENS], [13], [7]]),
    }


def ours(definition, params, x: dict, features: dict | None, image_scale: float) -> np.ndarray:
    @jax.jit
    def run(params, x, features):
        model = definition.bind(params)
        conditions = None if features is None else model.conditions(features)
        where = {"positions": x["positions"], "mask": x["mask"]}
        return model(x["tokens"], x["timestep"], conditions, image_scale=image_scale, **where)

    return np.asarray(run(*jax.tree.map(jnp.asarray, (params, x, features))))


@torch.no_grad()
def theirs(examples, folder, x: dict, features: dict | None, image_scale: float) -> np.ndarray:
    dit, _ = examples[0].load(folder)
    x, features = jax.tree.map(torch.from_numpy, (x, features))
    heard = {}
    if features is not None:
        heard = examples[1].load_conditions(folder)(features)
    tokens, timestep, positions = (x[name] for name in ("tokens", "timestep", "positions"))
    return dit(tokens, timestep, positions, mask=x["mask"], image_scale=image_scale, **heard).numpy()


def compare(examples, folder, definition, params, x, features, image_scale=1.0) -> np.ndarray:
    expected = ours(definition, params, x, features, image_scale)
    found = theirs(examples, folder, x, features, image_scale)
    atol = TOLERANCE * max(1, np.abs(expected[x["mask"]]).max())
    np.testing.assert_allclose(found[x["mask"]], expected[x["mask"]], rtol=0, atol=atol)
    return expected


def test_a_run_of_stage_1_with_its_text_transformer(examples, tmp_path):
    config = stage1.get_config("tiny")
    config.train.steps, config.optimizer.warmup, config.optimizer.learning_rate = 6, 1, 0.02
    config.evaluation.samples, config.evaluation.nearest = 0, False
    experiment = build(DenoiseExperiment, config.to_dict())
    (tmp_path / "run").mkdir()
    task = Denoise(experiment, tmp_path / "run")
    loop.train(task, experiment, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    params, _ = load_parameters(tmp_path / "run")
    x, length = picture(task.space.features), experiment.text.length
    ids, masks = zip(*(task.reader.encodes["text"](text) for text in ("two dumplings on a plate", "一碗汤面", "")))
    assert np.stack(ids).shape == (BATCH, length)
    captioned = {"text": np.stack(ids).astype(np.int64), "text_mask": np.stack(masks)}
    heard = compare(examples, tmp_path / "out", task.definition, params, x, captioned)
    without = compare(examples, tmp_path / "out", task.definition, params, x, None)
    assert np.abs(heard[x["mask"]]).max() > 0.1 and np.abs(heard - without)[0].max() > 1e-3


@pytest.fixture(scope="module")
def model_with_image_prompts(tmp_path_factory):
    """(exported folder, definition, parameters): stage 2 in small, every array moved from where it starts."""
    config = stage2.get_config("tiny")
    config.model.width, config.model.depth, config.towers.resampler_depth = 64, 3, 2
    experiment = build(DenoiseExperiment, config.to_dict())
    definition = define_model(experiment, WIDTHS, FEATURES)
    params = jax.tree.map(lambda a: np.asarray(a) + 0.1 * normal(*a.shape), definition.init(jax.random.key(0)))
    folder = tmp_path_factory.mktemp("stage2")
    checkpointer = Checkpointer(folder / "checkpoints")
    metadata = {"experiment": to_dict(experiment), "task": {"kind": "text_to_image", "frozen": {}}}
    checkpointer.save(1, {"opt_state": {"ema": {"params": params}}}, metadata)
    checkpointer.close()
    assert main(["export", str(folder), str(folder / "out")]) == 0
    return folder / "out", definition, params


def prompts(**left_out: bool) -> dict:
    features = {name: normal(BATCH, WIDTHS.tokens[name], WIDTHS.text[name]) for name in ("t5", "eclip")}
    features |= {f"{name}_mask": seen(length) for name, length in WIDTHS.tokens.items()}
    features["pooled"] = normal(BATCH, WIDTHS.pooled) * np.array([[1.0], [0.1], [0.0]], np.float32)
    has_image = np.array([[True], [False], [True]])
    features["patches"] = normal(BATCH, WIDTHS.patches, WIDTHS.patch) * has_image[..., None]
    features["patches_mask"] = np.broadcast_to(has_image, (BATCH, WIDTHS.patches)).copy()
    gone = [name for name, out in left_out.items() if out]
    return {name: value for name, value in features.items() if name.removesuffix("_mask") not in gone}


@pytest.mark.parametrize(
    "left_out",
    [{}, {"patches": True}, {"t5": True}, {"eclip": True, "pooled": True}],
    ids="-".join,
)
def test_towers_and_image_prompts(examples, model_with_image_prompts, left_out):
    folder, definition, params = model_with_image_prompts
    x, features = picture(FEATURES), prompts(**left_out)
    expected = compare(examples, folder, definition, params, x, features, image_scale=0.6)
    assert np.abs(expected[x["mask"]]).max() > 0.5
    if "patches" in features:
        # It is heard, by those that have one.
        deaf = compare(examples, folder, definition, params, x, features, image_scale=0.0)
        assert np.abs(expected - deaf)[0].max() > 1e-2 and np.array_equal(expected[1], deaf[1])


def test_a_bfloat16_export_in_several_files(examples, model_with_image_prompts, tmp_path):
    from fooddit.training.exported import save_exported

    folder, definition, params = model_with_image_prompts
    _, metadata = load_parameters(folder)
    save_exported(tmp_path / "half", params, metadata, "bfloat16", shard_bytes=100_000)
    assert len(list((tmp_path / "half").glob("*.safetensors"))) > 1
    rounded, _ = load_parameters(tmp_path / "half")
    x, features = picture(FEATURES), prompts()
    compare(examples, tmp_path / "half", definition, rounded, x, features)
    weights, _ = examples[0].read(tmp_path / "half")
    assert all(value.dtype == torch.float32 for value in weights.values())
    name = "dit.blocks.2.cross.image_value.weight"
    whole = torch.from_numpy(params["dit"]["blocks"]["cross"]["image_value"]["kernel"][2].T)
    assert torch.equal(weights[name], whole.bfloat16().float())
