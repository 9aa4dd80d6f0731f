"""A checkpoint as a Python object and as `fooddit generate`: a seed is one picture, whatever is drawn beside it."""

import numpy as np
import pytest
from PIL import Image

import fooddit
from fooddit.cli import main
from fooddit.generate_command import _keep_another
from fooddit.models.text_to_image import SamplingConfig
from fooddit.pipeline import BATCH_SIZE, MAX_SEED, Picture
from fooddit.training.checkpoint import Checkpointer, list_steps

EN, ZH = "two dumplings on a round blue plate", "圆形蓝色盘子里的两个饺子"


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return fooddit.Pipeline.from_checkpoint(tiny_run)


@pytest.fixture(scope="module")
def pictures(pipe):
    """Two prompts of three pictures each, seeds 7, 8 and 9."""
    return pipe([EN, ZH], num_images=3, seed=7)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_three_lines_give_pictures(pictures):
    assert [picture.size for picture in pictures] == [(64, 64)] * 6
    assert all(isinstance(picture, Image.Image) and picture.mode == "RGB" for picture in pictures)
    # Every prompt and every seed has its own picture, Chinese and English alike.
    assert len({picture.tobytes() for picture in pictures}) == 6


def test_a_picture_has_the_same_bits_whatever_it_is_drawn_with(pipe, pictures):
    assert same(pipe(EN, seed=8)[0], pictures[1])
    assert same(pipe([ZH], num_images=1, seed=9)[0], pictures[5])
    # At the end of a call that takes two batches.
    many = pipe(["soup"] * (BATCH_SIZE + 2) + [ZH], seed=7)
    assert len(many) == BATCH_SIZE + 3 and same(many[-1], pictures[3])


def test_another_pipeline_of_the_same_run_draws_the_same(tiny_run, pictures):
    again = fooddit.Pipeline.from_checkpoint(tiny_run, step=list_steps(tiny_run / "checkpoints")[-1])
    assert same(again(EN, seed=7)[0], pictures[0])


def test_a_png_holds_what_made_it(pipe, tmp_path):
    picture = pipe.generate(ZH, seed=7, guidance_scale=3, steps=2)[0]
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.text == {
            "prompt": ZH,
            "seed": "7",
            "checkpoint": pipe.name,
            "steps": "2",
            "method": "euler",
            "guidance_scale": "3.0",
        }
        assert same(stored, picture.image)
    assert pipe.name.endswith("/checkpoints/4")


def test_another_image_prompt_or_another_tower_left_out_is_another_picture(tmp_path):
    def drawn(**made):
        return Picture(Image.new("RGB", (8, 8)), ZH, 7, "run", SamplingConfig(), **made)

    made = [{}, {"reference": "a1"}, {"reference": "b2"}, {"without": ("t5",)}, {"reference": "a1", "without": ("t5",)}]
    for number, first in enumerate(made):
        path = tmp_path / f"{number}.png"
        drawn(**first).save(path)
        for other in made:
            if other == first:
                _keep_another(path, drawn(**other))
            else:
                with pytest.raises(FileExistsError, match=r"is another picture \((image|without|image_scale|image_g)"):
                    _keep_another(path, drawn(**other))


def test_settings_change_the_picture(pipe, pictures):
    assert not same(pipe(EN, seed=7, guidance_scale=9.0)[0], pictures[0])
    assert not same(pipe(EN, seed=7, steps=3)[0], pictures[0])


def test_numpys_integers_do_not_wrap(pipe):
    assert [picture.seed for picture in pipe.generate(EN, num_images=2, seed=np.uint8(255))] == [255, 256]


def test_a_picture_is_saved_as_what_its_name_says(pipe, tmp_path):
    picture = pipe.generate(EN)[0]
    with pytest.raises(ValueError, match="x.jpg: expected a name ending in .png"):
        picture.save(tmp_path / "x.jpg")
    with pytest.raises(FileNotFoundError, match="none is no folder"):
        picture.save(tmp_path / "none/x.png")


def test_another_size(pipe):
    assert [picture.size for picture in pipe(EN, size=(32, 48), num_images=2)] == [(48, 32)] * 2


def test_the_first_pictures_do_not_wait_for_a_list_of_all(pipe, pictures):
    endless = pipe.stream([EN, ZH], num_images=10**9, seed=7)
    assert all(same(next(endless).image, picture) for picture in pictures[:3])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prompt": []}, "no prompt"),
        ({"num_images": 0}, "num_images=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": MAX_SEED, "num_images": 2}, f"seeds from 0 to {MAX_SEED}"),
        ({"steps": 0}, "steps must be from 1 to 10,000, found 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be from 0 to"),
        ({"guidance_scale": -5}, "guidance_scale must be from 0 to"),
        ({"size": 8000}, "at most 4,096 pixels a side"),
        ({"size": 60}, "multiples of 8"),
        ({"size": 0}, "multiples of 8"),
        ({"size": (64, -8)}, "multiples of 8"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"prompt": EN, **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prompt": None}, "prompts must be text"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"num_images": "2"}, "num_images must be a whole number"),
        ({"size": "64x72"}, "size must be a side"),
        ({"size": [64, 72, 8]}, "size must be a side"),
        ({"size": 64.0}, "size must be a side"),
    ],
    ids=str,
)
def test_arguments_of_another_type_are_refused(pipe, arguments, message):
    with pytest.raises(TypeError, match=message):
        pipe(**{"prompt": EN, **arguments})


def test_what_is_no_text_to_image_checkpoint_is_refused(tmp_path, tiny_run):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        fooddit.Pipeline.from_checkpoint(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match="99"):
        fooddit.Pipeline.from_checkpoint(tiny_run, step=99)
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    state = {"opt_state": {"ema": {"params": {"a": np.zeros(2, np.float32)}}}}
    checkpointer.save(1, state, {"task": {"kind": "autoencoder"}})
    checkpointer.close()
    with pytest.raises(ValueError, match="of kind 'autoencoder', expected text_to_image"):
        fooddit.Pipeline.from_checkpoint(tmp_path)


def test_generate_writes_the_pipelines_pictures(tiny_run, pictures, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(f"\n{ZH}\n", encoding="utf-8")
    arguments = ["--prompt", EN, "--prompt-file", str(tmp_path / "prompts.txt"), "--num", "3", "--seed", "7"]
    assert main(["generate", "--checkpoint", str(tiny_run), "--out", str(tmp_path / "out"), *arguments]) == 0
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [
        *(f"0000-two-dumplings-on-a-round-blue-plate-{seed}.png" for seed in (7, 8, 9)),
        *(f"0001-{ZH}-{seed}.png" for seed in (7, 8, 9)),
    ]
    assert all(same(Image.open(path), picture) for path, picture in zip(files, pictures, strict=True))
    assert capsys.readouterr().out.split() == [str(path) for path in files]
    # The same command again gives the same pictures; another one replaces none of them.
    before = files[0].read_bytes()
    draw = ["generate", "--checkpoint", str(tiny_run), "--out", str(tmp_path / "out"), *arguments[:2], "--seed", "7"]
    assert main([*draw, "--num", "1"]) == 0
    assert main([*draw, "--num", "1", "--guidance-scale", "3"]) == 2
    assert main([*draw[:-2], "--seed", "-1", "--out", str(tmp_path / "none")]) == 2 and not (tmp_path / "none").exists()
    error = capsys.readouterr().err
    assert f"{files[0]} is another picture (guidance_scale: 2.0, now 3.0)" in error and files[0].read_bytes() == before
