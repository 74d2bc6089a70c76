"""Tests that an error of a picture, a codec or a file affects only its own row of a report."""

from __future__ import annotations

import codecs
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfquant.data import images
from tfquant.data.images import ImageError
from tfquant.evaluation import EvaluationError, curves, pictures, report, run
from tfquant.export.manifest_file import ModelError


@pytest.fixture(name="evaluate")
def _evaluate(tmp_path, subsampling_model, write_manifest):
    """Returns `evaluate(images, codecs, **more)`, which returns (result of `run`, lines of
    progress).
    """

    def evaluate(spec, codecs=("jpeg",), models=None, **more):
        models = models or {"m": subsampling_model(4)}
        for name, model in models.items():
            if not (tmp_path / name).exists():
                write_manifest(tmp_path / name, model)
        lines = []
        evaluation = run.Evaluation(
            model_dirs=tuple(str(tmp_path / name) for name in models),
            images=str(spec),
            conventional=codecs,
            **{"report_dir": tmp_path / "report", **more},
        )
        result = run.run(evaluation, lambda path: models[Path(path).name], lines.append)
        return result, lines

    return evaluate


@pytest.fixture(name="folder")
def _folder(tmp_path, make_photograph):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, name in enumerate(("a", "b")):
        images.write_image(folder / f"{name}.png", make_photograph(48, 64, i))
    return folder


def test_a_picture_that_cannot_be_read_is_a_row_with_its_reason(tmp_path, folder, evaluate):
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(folder / "z.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:-200])
    (folder / "text.jpg").write_text("no picture")
    result, lines = evaluate(folder)
    assert [row.name for row in result.models[0].images] == ["a", "b"]
    assert result.run.number_of_images == 2
    failed = {row.name: row.error for row in result.failed}
    assert set(failed) == {"z", "broken", "text"}
    assert "z.png: has transparent pixels: name a background colour" in failed["z"]
    assert sum(line.startswith("skipped: ") for line in lines) == 3
    with open(tmp_path / "report" / "report.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file) if row["error"]}
    assert {name: row["error"] for name, row in rows.items()} == failed
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Pictures without measurement" in text and failed["z"] in text
    assert failed["broken"] in report.summary(result)
    assert json.loads((tmp_path / "report" / "report.json").read_text())["failed"]


def test_a_transparent_picture_is_measured_with_a_background(folder, evaluate):
    Image.new("RGBA", (48, 48), (1, 2, 3, 0)).save(folder / "z.png")
    result, _ = evaluate(folder, background=(255, 255, 255))
    assert not result.failed
    assert [row.name for row in result.models[0].images] == ["a", "b", "z"]


def test_a_folder_without_a_readable_picture_is_rejected_with_the_first_reason(tmp_path, evaluate):
    (tmp_path / "p").mkdir()
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(tmp_path / "p" / "z.png")
    with pytest.raises(ImageError, match="none of 1 pictures can be read; first: .*z.png: has tra"):
        evaluate(tmp_path / "p")


@pytest.mark.parametrize("trouble", ["raises", "differs", "no bits"])
def test_a_picture_that_one_model_cannot_measure_is_excluded_from_all_means(
    folder, evaluate, subsampling_model, trouble
):
    bad = images.read_image(folder / "b.png")

    class Choosy(subsampling_model):
        def compress(self, image):
            if trouble == "raises" and np.array_equal(image, bad):
                raise ModelError("cannot encode\nthis")
            return super().compress(image)

        def evaluate(self, image):
            result = super().evaluate(image)
            if np.array_equal(image, bad) and trouble == "differs":
                result["image"] = 255 - result["image"]
            if np.array_equal(image, bad) and trouble == "no bits":
                result["bits"] = float("nan")
            return result

    models = {"choosy": Choosy(4), "plain": subsampling_model(2)}
    result, lines = evaluate(folder, models=models)
    (failed,) = result.failed
    assert (failed.name, failed.codec) == ("b", "choosy") and "\n" not in failed.error
    assert any(line.startswith("  [2/2] b  FAILED: ") for line in lines)
    for model in result.models:
        assert [row.name for row in model.images] == ["a"]
        assert model.mean.bpp == model.images[0].bpp
    assert all(len(point.images) == 1 for point in result.conventional[0].points)


def test_curves_are_without_pictures_that_a_codec_keeps_exactly(
    folder, evaluate, subsampling_model
):
    """Tests a picture of one colour, which the models decode without error and JPEG does not."""
    Image.new("RGB", (48, 48), (37, 90, 201)).save(folder / "flat.png")
    models = {f"step{step}": subsampling_model(step) for step in (4, 2)}
    result, _ = evaluate(folder, models=models, codecs=("jpeg",))
    assert [row.psnr is None for row in result.models[0].images] == [False, False, True]
    assert result.run.number_of_images == 3
    (note,) = [note for note in result.notes if note.startswith("PSNR is infinite")]
    assert "1 of 3 pictures are in no curve" in note and "(flat: step4)" in note
    # The oracle has the two other pictures only.
    (folder / "flat.png").unlink()
    expected, _ = evaluate(folder, models=models, codecs=("jpeg",), report_dir=folder / "again")
    assert result.bd_rate == expected.bd_rate and result.same_psnr == expected.same_psnr
    assert any(row.percent is not None for row in result.bd_rate)


def test_the_rate_of_ms_ssim_is_that_of_the_pictures_that_have_it(
    folder, evaluate, make_photograph, subsampling_model
):
    for number in range(2):
        picture = make_photograph(176, 192, number)
        images.write_image(folder / f"large{number}.png", picture)

    class Padded(subsampling_model):
        """Its files are longer by 1000 bytes, a larger share for a smaller picture."""

        def compress(self, image):
            return super().compress(image) + bytes(1000)

    made = {"mix": subsampling_model, "aun": Padded}
    models = {f"{plan}{step}": made[plan](step, plan) for plan in made for step in (4, 3, 2)}

    def rates(name):
        result, _ = evaluate(folder, models=models, codecs=(), report_dir=folder / name)
        return [
            [row for row in result.bd_rate if row.metric == metric]
            for metric in ("ms_ssim_db", "psnr")
        ]

    everything = rates("all")
    for name in "ab":
        (folder / f"{name}.png").unlink()
    large = rates("large")
    assert everything[0] == large[0] and everything[1] != large[1]
    assert any(row.percent is not None for row in everything[0])


def test_a_model_that_fails_on_all_pictures_ends_with_the_first_reason(
    folder, evaluate, subsampling_model
):
    class Broken(subsampling_model):
        def compress(self, image):
            raise ModelError("cannot encode")

    with pytest.raises(EvaluationError, match="no picture can be measured; first: cannot encode"):
        evaluate(folder, models={"broken": Broken(4)})


@pytest.mark.parametrize(
    ("side", "codec", "label", "limit"),
    [(16500, "webp", "WebP", 16383), (66000, "jpeg", "JPEG 4:2:0", 65500)],
)
def test_a_codec_that_cannot_encode_a_picture_is_not_compared(
    folder, evaluate, side, codec, label, limit
):
    Image.linear_gradient("L").resize((side, 2)).save(folder / "c_wide.png")
    result, lines = evaluate(folder, codecs=(codec,))
    assert not result.failed
    assert [row.name for row in result.models[0].images] == ["a", "b", "c_wide"]
    for point in result.conventional[0].points:
        assert [row.name for row in point.images] == ["a", "b"]
    reason = f"c_wide: {side}x2 pixels, more than {limit} a side"
    note = f"{label} cannot encode 1 of 3 pictures ({reason}); its curve is a mean over the others"
    assert note in result.notes and note in lines
    (row,) = [r for r in result.bd_rate if r.metric == "psnr" and r.anchor == label]
    assert row.percent is None
    assert row.note == f"{label} is a mean over 2 pictures, fake mix over others (3)"
    assert result.same_psnr[0].needs_bpp == {}
    if codec == "jpeg":
        assert len(result.nearest_rate[0].images) == 2
        assert "over 2 of 3 pictures" in report.summary(result)


def test_a_codec_that_can_encode_no_picture_is_skipped(tmp_path, evaluate):
    (tmp_path / "p").mkdir()
    Image.linear_gradient("L").resize((66000, 2)).save(tmp_path / "p" / "scan.png")
    result, _ = evaluate(tmp_path / "p", codecs=("jpeg", "webp"))
    assert not result.conventional and not result.nearest_rate
    assert sum(note.endswith("its curve is skipped") for note in result.notes) == 2


@pytest.mark.slow
def test_pictures_of_a_report_are_not_measured_by_the_next_one(folder, evaluate):
    first, _ = evaluate(folder, report_dir=folder / "report")
    again, lines = evaluate(folder, report_dir=folder / "report")
    other, _ = evaluate(folder, report_dir=folder / "second")
    third, _ = evaluate(folder, report_dir=folder)
    fourth, _ = evaluate(folder, report_dir=folder)
    for result in (first, again, other, third, fourth):
        assert [row.name for row in result.models[0].images] == ["a", "b"]
    assert any(f"3 pictures of reports are skipped in {folder}" in line for line in lines)
    # If they are named, they are pictures like others.
    own, _ = evaluate(folder / "report" / "reconstructions", report_dir=folder / "third")
    assert own.run.number_of_images == 2


def test_a_report_never_overwrites_a_users_file(tmp_path, folder, evaluate):
    (folder / "rd.png").write_bytes((folder / "a.png").read_bytes())
    before = (folder / "rd.png").read_bytes()
    with pytest.raises(EvaluationError, match=r"pictures has rd.png, and no report of tfquant"):
        evaluate(folder, report_dir=folder)
    assert (folder / "rd.png").read_bytes() == before
    result, _ = evaluate(folder, report_dir=folder / "report")
    assert result.run.number_of_images == 3


def test_plots_of_sweeps_and_explorations_are_skipped(folder, evaluate):
    marks = {"sweep": ("sweep.json", "table.md"), "search": ("exploration.json",)}
    plots = {"sweep": ("rd.png", "rd_kodak.png"), "search": ("exploration.png",)}
    for name, files in marks.items():
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_text("{}")
        for plot in plots[name]:
            (folder / name / plot).write_bytes((folder / "a.png").read_bytes())
    (folder / "sample").mkdir()  # the user's own
    images.write_image(folder / "sample" / "c.png", np.zeros([20, 20, 3], np.uint8))
    result, _ = evaluate(folder, report_dir=folder)
    assert [row.name for row in result.models[0].images] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "names",
    [
        ["a/b.png", "a__b.png"],
        ["x.png", "x.jpg", "x.png.webp"],
        ["a/x.png", "b/x.png", "a__x.png", "b__x.bmp"],
        ["X.png", "x.bmp", "x.PNG"],
        ["mean.png", "Mean.bmp"],
        ["latin\udce9.png", "latin_xe9.png"],
        ["line\nbreak.png", "a|b.png"],
        [f"{'n' * 240}1.png", f"{'n' * 240}2.png"],
        [f"{c * 60}/{c * 60}.png" for c in "\u5199\u771f"],
        [f"{c}/" + "\u5199" * 80 + ".png" for c in "ab"],
    ],
)
def test_every_picture_has_a_unique_name_that_fits_a_file(tmp_path, names):
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
        os.rename(tmp_path / "one.png", path)
    found = pictures.find_pictures(str(tmp_path / "in"), tmp_path).pictures
    lower = [picture.name.lower() for picture in found]
    assert len(set(lower)) == len(names) and "mean" not in lower
    for picture in found:
        assert picture.name.isprintable() and picture.name.encode()
        (tmp_path / f"{picture.name}.png").write_bytes(b"")


def test_pictures_with_odd_names_are_measured_and_reported(tmp_path, folder, evaluate):
    os.rename(folder / "a.png", folder / "latin\udce9.png")
    os.rename(folder / "b.png", folder / "a|b\n.png")
    result, _ = evaluate(folder)
    names = {row.name for row in result.models[0].images}
    assert names == {"latin_xe9", "a|b_n"}
    assert "a\\|b_n" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for name in names:
        stored = tmp_path / "report" / "reconstructions" / "m" / f"{name}.tfq"
        assert stored.stat().st_size > 0


POINTS = [("0.1", "28"), ("0.3", "31"), ("0.6", "34"), ("1.0", "37")]


def anchor(metric="PSNR", points=POINTS, delimiter=","):
    rows = [("metric", "codec", "bpp", "value")]
    rows += [(metric, "BPG 4:4:4", *point) for point in points]
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + anchor().encode(),
        anchor().encode("utf-16"),
        codecs.BOM_UTF16_BE + anchor().encode("utf-16-be"),
        anchor().encode("utf-16-le"),
        anchor().replace("\n", "\r\n").encode(),
        anchor().replace("\n", "\r").encode(),
        anchor(delimiter=";").encode(),
        anchor(delimiter="\t").encode(),
        b"\r\n \r\n" + anchor().encode(),
        codecs.BOM_UTF8 + b"sep=;\r\n" + anchor(delimiter=";").replace("\n", "\r\n").encode(),
        anchor(delimiter=";").replace(".", ",").encode(),
        anchor(delimiter=" , ").encode() + b"\n,,,\n",
        anchor().replace("metric", "Metric").replace("PSNR", "psnr [dB]").encode(),
        (anchor() + "PSNR,caf\u00e9,1,30\n").encode("cp1252"),
    ],
)
def test_an_anchor_is_read_in_the_variants_of_common_programs(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    found = curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
    expected = [[float(bpp), float(value)] for bpp, value in POINTS]
    np.testing.assert_array_equal(found.samples("psnr"), expected)


def test_ms_ssim_of_an_anchor_is_linear_or_in_decibels(tmp_path):
    for metric, values in {
        "MS-SSIM": ("0.9", "0.99"), "MS-SSIM [dB]": ("10", "20"), "ms-ssim (dB)": ("10", "20"),
    }.items():  # fmt: skip
        (tmp_path / "a.csv").write_text(anchor(metric, zip(("0.1", "0.2"), values)))
        found = curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
        np.testing.assert_allclose(found.samples("ms_ssim_db"), [[0.1, 10], [0.2, 20]], rtol=1e-5)
    (tmp_path / "a.csv").write_text(anchor("MS-SSIM", [("0.1", "10"), ("0.2", "20")]))
    found = curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
    np.testing.assert_allclose(found.samples("ms_ssim_db"), [[0.1, 10], [0.2, 20]])


@pytest.mark.parametrize(
    ("metric", "bad", "words"),
    [
        ("PSNR", ("0", "20"), "line 6: bpp must be a number above 0; got '0'"),
        ("PSNR", ("-1", "20"), "line 6: bpp must be a number above 0; got '-1'"),
        ("PSNR", ("inf", "20"), "line 6: bpp must be a number above 0; got 'inf'"),
        ("PSNR", ("nan", "20"), "line 6: bpp must be a number above 0; got 'nan'"),
        ("PSNR", ("1", "inf"), "line 6: value must be finite; got 'inf'"),
        ("PSNR", ("1", ""), "line 6: expected numbers for bpp and value, got ''"),
        ("PSNR", ("1,5", "30,5"), "line 6: 6 cells for 4 columns; decimal commas need semicolons"),
        ("MS-SSIM", ("1", "0.9"), "line 2: MS-SSIM above 1 beside values below"),
    ],
)
def test_an_invalid_row_is_rejected_with_its_number(tmp_path, metric, bad, words):
    (tmp_path / "a.csv").write_text(anchor(metric, [*POINTS, bad]))
    with pytest.raises(EvaluationError, match="a.csv, ") as caught:
        curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
    assert words in str(caught.value)


def test_perfect_ms_ssim_and_unknown_metrics_are_rejected(tmp_path):
    (tmp_path / "a.csv").write_text(anchor("MS-SSIM", [("0.1", "0.9"), ("0.2", "1.0")]))
    with pytest.raises(EvaluationError, match="line 3: MS-SSIM must be from 0 to below 1; got 1"):
        curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
    (tmp_path / "a.csv").write_text(anchor("VMAF"))
    with pytest.raises(EvaluationError, match="no metric PSNR or MS-SSIM .*; got VMAF"):
        curves.read_published(tmp_path / "a.csv", "BPG 4:4:4")
