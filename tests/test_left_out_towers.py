"""Drawing without a tower: its folder is not opened, its part of the model is not there."""

import numpy as np
import pytest
from PIL import Image

import fooddit
from fooddit.config import build, to_dict
from fooddit.models.t5_folder import open_t5
from fooddit.tasks.denoise_step import DenoiseExperiment, DenoiseStep
from fooddit.training.exported import save_exported

PROMPT = "two dumplings on a round blue plate"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Stage 2 untrained, trained (as its config says) with a T5 whose folder is gone."""
    import jax

    from configs.stage2 import get_config

    config = get_config("tiny")
    config.sampling.steps = 2
    step = DenoiseStep(build(DenoiseExperiment, config.to_dict()))
    experiment = to_dict(step.experiment)
    experiment["towers"]["t5"] = "/nowhere/t5"
    about = {"kind": "text_to_image", "frozen": step.frozen.description}
    params = jax.tree.map(lambda leaf: leaf + 0.02, step.init(jax.random.key(0)))
    folder = tmp_path_factory.mktemp("exported") / "model"
    save_exported(folder, jax.tree.map(np.asarray, params), {"task": about, "experiment": experiment, "step": 1})
    return folder


def test_a_t5_that_is_not_there_is_not_asked_for(exported):
    with pytest.raises(fooddit.config.ConfigError, match="config.towers.t5: no folder '/nowhere/t5'"):
        fooddit.Pipeline.from_checkpoint(exported)
    pipe = fooddit.Pipeline.from_checkpoint(exported, without=["t5"])
    assert list(pipe.reader.parts) == ["eclip"] and sorted(pipe.params["towers"]) == ["eclip", "pooled"]
    reference = Image.fromarray(np.full((64, 64, 3), 200, np.uint8))
    picture = pipe.generate(PROMPT, image=reference)[0]
    assert picture.image.size == (64, 64) and picture.without == ("t5",)


def test_without_eclip_there_are_no_image_prompts(exported, monkeypatch):
    monkeypatch.setattr("fooddit.models.t5_folder.open_t5", lambda source, *args: open_t5("builtin:t5", *args))
    pipe = fooddit.Pipeline.from_checkpoint(exported, without=["eclip"])
    assert "resampler" not in pipe.params and pipe(PROMPT)[0].size == (64, 64)
    with pytest.raises(ValueError, match="image"):
        pipe(PROMPT, image=Image.new("RGB", (64, 64)))


def test_one_tower_must_stay(exported):
    with pytest.raises(ValueError, match="without t5, eclip: .* has no other tower to read a prompt; leave one"):
        fooddit.Pipeline.from_checkpoint(exported, without=["t5", "eclip"])
