"""The corpus of bad prompts and configs; pictures that were drawn survive what comes after them."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from configs.stage1 import get_config
from fooddit.cli import main
from fooddit.config import ConfigError, build
from fooddit.data.tokenizer import train_tokenizer
from fooddit.models.prompts import LearnedText
from fooddit.models.text_to_image import SamplingConfig
from fooddit.pipeline import Picture, Pipeline
from fooddit.tasks.denoise_step import DenoiseExperiment
from tests.bad_input.corpus import CONFIGS, GOOD_PROMPTS, PROMPT_FILES, PROMPTS
from tests.data.made import picture


class Loaded:
    """Stands for a checkpoint: draws without a model."""

    def stream(self, prompts, *, num_images, seed, **_):
        for text in prompts:
            for number in range(seed, seed + num_images):
                yield Picture(Image.fromarray(picture(number)), text, number, "made", SamplingConfig())


@pytest.fixture
def checkpoint(monkeypatch):
    monkeypatch.setattr(Pipeline, "from_checkpoint", lambda *_, **__: Loaded())


@pytest.fixture
def no_checkpoint(monkeypatch):
    monkeypatch.setattr(Pipeline, "from_checkpoint", lambda *_, **__: pytest.fail("loaded before the prompts"))


def generate(out, *arguments):
    return main(["generate", "--checkpoint", "run", "--out", str(out), *arguments])


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.startswith("fooddit generate: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("name", PROMPTS)
def test_bad_prompts_are_refused_by_number_before_the_checkpoint_is_loaded(name, tmp_path, no_checkpoint, capsys):
    arguments, message = PROMPTS[name]
    assert generate(tmp_path / "out", *arguments) == 2
    assert message in one_line(capsys) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_bad_prompt_files_are_refused_by_file_and_line(name, tmp_path, no_checkpoint, capsys):
    content, message = PROMPT_FILES[name]
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    assert generate(tmp_path / "out", "--prompt-file", str(file)) == 2
    assert message.format(file=file) in one_line(capsys)


def test_a_folder_of_prompts_is_refused(tmp_path, no_checkpoint, capsys):
    assert generate(tmp_path / "out", "--prompt-file", str(tmp_path)) == 2
    assert "a folder, expected a file with one prompt a line" in one_line(capsys)


def test_unusual_prompts_are_drawn_under_plain_names_and_stored_as_they_are(tmp_path, checkpoint, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(GOOD_PROMPTS), encoding="utf-8")
    assert generate(tmp_path / "out", "--num", "1", "--prompt-file", str(tmp_path / "prompts.txt")) == 0
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [
        "0000-prompt-0.png",
        "0001-a-bowl-of-ramen-0.png",
        "0002-مرحبا-حساء-0.png",
        "0003-שלום-0.png",
        "0004-three-dumplings-0.png",
        "0005-etc-passwd-0.png",
        "0006-prompt-0.png",
    ]
    for path, prompt in zip(files, GOOD_PROMPTS, strict=True):
        with Image.open(path) as stored:
            assert stored.text["prompt"] == prompt
    # A prompt as long as may be: its words in the name are cut, not those in the picture.
    long = ("很长" * 2000)[:4000]
    assert generate(tmp_path / "long", "--num", "1", "--prompt", long) == 0
    (path,) = (tmp_path / "long").iterdir()
    assert len(path.name.encode()) < 255 and Image.open(path).text["prompt"] == long


def test_pictures_are_written_as_they_are_drawn(tmp_path, checkpoint, monkeypatch, capsys):
    """A disk that is full at the third picture costs neither of the two before it, and leaves no half of it."""
    real, calls = Image.Image.save, iter(range(9))

    def save(self, path, *arguments, **options):
        if next(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, path, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    assert generate(tmp_path / "out", "--num", "4", "--prompt", "soup") == 2
    assert "the disk is full (" in one_line(capsys)
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == ["0000-soup-0.png", "0000-soup-1.png"]
    for seed, path in enumerate(files):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture(seed))


def test_a_size_that_cannot_be_drawn_here_is_one_line(tmp_path, checkpoint, monkeypatch, capsys):
    def stream(*_, **__):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 96017056310904 bytes.\nmore")
        yield

    monkeypatch.setattr(Loaded, "stream", stream)
    assert generate(tmp_path / "out", "--prompt", "soup", "--size", "4096") == 2
    assert "--size 4096 cannot be drawn here, choose a smaller one: RESOURCE_EXHAUSTED: Out of" in one_line(capsys)
    # At the size it was trained for, it is another matter, and its traceback says more.
    with pytest.raises(JaxRuntimeError):
        generate(tmp_path / "out", "--prompt", "soup")


def test_ctrl_c_ends_it_even_where_an_interrupt_would_be_swallowed(tmp_path):
    code = f"""
import os, signal, time
import tests.bad_input.test_prompts_and_configs as made
from fooddit.cli import main
class Interrupted(made.Loaded):
    def stream(self, *arguments, **options):
        for number, drawn in enumerate(super().stream(*arguments, **options)):
            if number == 2:
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(5)
                except KeyboardInterrupt:
                    pass
            yield drawn
made.Pipeline.from_checkpoint = lambda *_, **__: Interrupted()
main(["generate", "--checkpoint", "run", "--num", "4", "--prompt", "soup", "--out", {str(tmp_path / "out")!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_kill_9_costs_no_picture_that_is_drawn(tmp_path):
    code = f"""
import os, signal
import tests.bad_input.test_prompts_and_configs as made
from fooddit.cli import main
class Killed(made.Loaded):
    def stream(self, *arguments, **options):
        for number, drawn in enumerate(super().stream(*arguments, **options)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield drawn
made.Pipeline.from_checkpoint = lambda *_, **__: Killed()
main(["generate", "--checkpoint", "run", "--num", "4", "--prompt", "soup", "--out", {str(tmp_path / "out")!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    files = sorted((tmp_path / "out").iterdir())
    assert done.returncode == -9, done.stderr
    assert done.stdout.split() == [str(path) for path in files] and len(files) == 2
    for seed, path in enumerate(files):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture(seed))


def test_a_folder_that_cannot_be_written_is_refused_before_the_checkpoint_is_loaded(tmp_path, no_checkpoint, capsys):
    (tmp_path / "file").touch()
    assert generate(tmp_path / "file/out", "--prompt", "soup") == 2
    assert f"{tmp_path / 'file'} is a file, expected a folder" in one_line(capsys)
    assert generate("/proc/out", "--prompt", "soup") == 2
    assert "/proc" in one_line(capsys)


def test_what_the_model_does_not_read_of_a_prompt_is_said(monkeypatch):
    artist = SimpleNamespace(draw_batches=lambda *_, **__: iter([np.zeros((8, 8, 8, 3), np.uint8)]))
    monkeypatch.setattr(Pipeline, "_artist", lambda *_: artist)
    monkeypatch.setattr(Pipeline, "_shift", lambda *_: 1.0)
    experiment = SimpleNamespace(data=SimpleNamespace(image_size=8), sampling=SamplingConfig())
    reader = LearnedText(4, train_tokenizer(["红烧肉"] * 3, 300))
    pipe = Pipeline(experiment, None, None, reader, None, "made")
    with pytest.warns(UserWarning, match="reads 4 tokens of a prompt: prompt 2 has 9, 5 of them cut$"):
        pipe.stream(["红烧肉", "红烧肉" * 3])
    with pytest.raises(ValueError, match="prompt 2 has a control character"):
        pipe.stream(["soup", "\0"])


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_configs_are_refused_by_key(name):
    changes, message = CONFIGS[name]
    values = get_config("tiny").to_dict()
    for section, keys in changes.items():
        values[section] = values[section] | keys if isinstance(keys, dict) else keys
    with pytest.raises(ConfigError) as error:
        build(DenoiseExperiment, values)
    assert message in str(error.value)
