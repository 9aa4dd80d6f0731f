from configs import stage1
from configs.base import base
from fooddit.config import build
from fooddit.tasks.denoise_step import DenoiseExperiment


def test_a_size_given_later_is_not_shadowed_by_the_default_sizes_width():
    config = stage1.get_config()
    experiment = build(DenoiseExperiment, config.to_dict())
    assert (experiment.model.size, experiment.model.width, experiment.model.depth) == ("xl", 1536, 28)
    config.model.width = 256
    assert build(DenoiseExperiment, config.to_dict()).model.width == 256


def test_required_fields_are_given_and_unknown_keys_cannot_be_set():
    config = base("denoise", data={"source": "somewhere", "batch_size": 4})
    assert config.data.source == "somewhere" and config.data.threads >= 1
    try:
        config.model.widht = 1
    except AttributeError as error:
        assert "width" in str(error)
    else:
        raise AssertionError("an unknown key was accepted")
