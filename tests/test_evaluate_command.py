"""`fooddit evaluate`: from a checkpoint to a page, again without drawing again, and one line for what is wrong."""

import json

import pytest
from PIL import Image

from fooddit.cli import main
from fooddit.data.scenes import render_image, sample_spec
from fooddit.evaluation import measurements
from tests.data.made import dataset, record


@pytest.fixture(scope="module", autouse=True)
def few_renders_for_the_readers_own_error():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "_ORACLE", 16)
        yield


@pytest.fixture(scope="module")
def out(tiny_run, tmp_path_factory):
    """An evaluation of six pictures of the tiny run."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    assert main(["evaluate", "--checkpoint", str(tiny_run), "--num", "6", "--real", "16", "--out", str(out)]) == 0
    return out


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


def test_a_checkpoint_becomes_a_report_and_a_page(out, tiny_run, capsys):
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["pictures"] == 6 and report["settings"]["checkpoint"].startswith(str(tiny_run))
    assert report["networks"][0]["same_dishes"]["pictures"]["n"] == 6 and report["fit"]["by"] == "attributes"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and f"How good are the pictures of {tiny_run.name}?" in page
    names = sorted(path.name for path in out.iterdir())
    assert names == ["features", "pictures", "report.html", "report.json", "settings.json"]
    assert not list(out.glob("**/.*"))


def test_what_is_drawn_is_not_drawn_again(out, tiny_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in (out / "pictures").glob("*.png")}
    report = (out / "report.json").read_text(encoding="utf-8")
    lost = out / "pictures/00002.png"
    content = lost.read_bytes()
    lost.unlink()
    (out / "report.html").unlink()
    arguments = ["evaluate", "--checkpoint", tiny_run, "--num", 6, "--real", 16, "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    assert "FID" in capsys.readouterr().out and (out / "report.html").is_file()
    after = {path: path.stat().st_mtime_ns for path in (out / "pictures").glob("*.png")}
    assert {path for path in after if after[path] != before[path]} == {lost}
    # The lost one has the same bytes, drawn without the others, and the figures are the same.
    assert lost.read_bytes() == content
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == json.loads(report)


def test_pictures_of_other_settings_are_not_mixed(out, tiny_run, capsys):
    said = refused(capsys, "--checkpoint", tiny_run, "--num", 6, "--guidance-scale", 3, "--out", out)
    assert f"{out} holds another evaluation (guidance_scale: 2.0, now 3.0)" in said


def test_its_pictures_can_be_evaluated_as_a_folder(out, tiny_run, tmp_path, capsys):
    (records,) = tiny_run.glob("records-*")
    arguments = ["evaluate", "--images", out / "pictures", "--records", records, "--real", 16, "--out", tmp_path / "b"]
    assert main([str(argument) for argument in arguments]) == 0
    first, again = (json.loads((where / "report.json").read_text(encoding="utf-8")) for where in (out, tmp_path / "b"))
    assert again["networks"] == first["networks"] and again["samples"] == first["samples"]
    assert f"of {out / 'pictures'}" in again["subtitle"]
    said = refused(capsys, *map(str, arguments[1:-1]), out)
    assert f"{out} holds another evaluation (images: None, now {out / 'pictures'})" in said


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give --checkpoint DIR to draw pictures with a run, or --images DIR"),
        (["--checkpoint", "{tmp}/none", "--images", "{tmp}"], "give --checkpoint DIR to draw"),
        (["--checkpoint", "{tmp}/none"], "{tmp}/none"),
        (["--images", "{tmp}/none"], "--images needs --records DIR"),
        (["--images", "{tmp}/none", "--records", "{tmp}/none"], "none"),
        (["--images", "{tmp}/none", "--records", "{records}"], "none: no such folder"),
        (["--images", "{tmp}", "--records", "{records}"], "found no picture"),
        (["--images", "{records}", "--records", "{records}", "--num", "1"], "found --num 1"),
        (["--images", "{tmp}/out", "--records", "{records}"], "is the folder of --images"),
        (
            ["--images", "{tmp}", "--records", "{records}", "--features", "vgg"],
            "features 'vgg': expected builtin:scene_r",
        ),
        (["--images", "{tmp}", "--records", "{records}", "--features", "inception:{tmp}/w"], "no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, tmp_path, tmp_path_factory, capsys):
    records = tmp_path_factory.mktemp("made") / "records"
    dataset(records, [record(0)], [record(1), record(2)])
    places = {"tmp": tmp_path, "records": records}
    arguments = [argument.format(**places) for argument in arguments]
    assert message.format(**places) in refused(capsys, *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_records_that_are_not_there_are_refused(tmp_path, capsys):
    records, folder = tmp_path / "records", tmp_path / "pictures"
    dataset(records, [record(0), record(3)], [record(1), record(2)])
    folder.mkdir()
    Image.fromarray(render_image(sample_spec(0, 0), 64)).save(folder / "a.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "prompt": "soup", "record": "r99"}))
    said = refused(capsys, "--images", folder, "--records", records, "--out", tmp_path / "out")
    assert "no whole record 'r99'" in said
