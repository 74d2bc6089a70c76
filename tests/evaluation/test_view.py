"""Tests versions of the same size, their table and figure, and the page of `tfquant view`."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import weakref

import numpy as np
import pytest
from PIL import Image

import tfquant
from tfquant import cli
from tfquant.commands import demo
from tfquant.evaluation import comparison, pictures, same_size, view
from tfquant.evaluation.comparison import Comparison
from tfquant.training import folder


@pytest.fixture(scope="module", name="picture")
def _picture(make_photograph):
    return make_photograph(176, 192)


def size_of(picture, kind, quality, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, quality=quality, **options)
    return len(file.getvalue())


OPTIONS = {"subsampling": "4:2:0", "optimize": True}


@pytest.mark.parametrize("place", [0, 20, 70, 94])
@pytest.mark.parametrize("factor", [0.99, 1, 1.001, 1.015, 1.02, 1.3])
def test_a_version_is_the_largest_file_that_is_not_larger_unless_only_a_larger_one_is_near(
    picture, place, factor
):
    sizes = [size_of(picture, "JPEG", quality, **OPTIONS) for quality in range(1, 96)]
    wanted = round(factor * sizes[place])
    version = same_size.of_size("jpeg", picture, wanted)
    below = max((size for size in sizes if size <= wanted), default=0)
    above = min((size for size in sizes if size > wanted), default=0)
    only_above = above and above <= 1.02 * wanted and below < 0.98 * wanted
    chosen, other = (above, below) if only_above or not below else (below, above)
    assert len(version.data) == chosen
    assert (version.neighbour or (0,))[0] == other
    mse = np.mean((version.image.astype(float) - picture) ** 2)
    assert version.quality.psnr == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)


@pytest.mark.parametrize("size", [1500, 2000, 2500])
def test_webp_has_nearly_every_size(picture, size):
    """With whole qualities, its sizes between qualities 0 and 1 differ by up to 60 %."""
    version = same_size.of_size("webp", picture, size)
    assert same_size.is_same(version, size) and len(version.data) <= size


def test_a_codec_without_a_file_so_small_has_its_smallest_file(picture):
    version = same_size.of_size("jpeg", picture, 100)
    assert len(version.data) == size_of(picture, "JPEG", 1, **OPTIONS)
    assert version.neighbour is None
    assert not same_size.is_same(version, 100)
    assert same_size.psnr_at(version, 100) is None
    assert (
        same_size.size_text(version, 100) == f"{len(version.data)} (+{len(version.data) - 100} %)"
    )


def test_psnr_at_a_size_is_interpolated_over_the_logarithm_of_the_size(picture):
    version = same_size.version("c", bytes(100), picture // 2, picture)
    own = version.quality.psnr
    for found in (
        version._replace(neighbour=(400, own + 6)),
        version._replace(data=bytes(400), neighbour=(100, own - 6)),
    ):
        low = min(own, found.neighbour[1])
        assert same_size.psnr_at(found, 100) == pytest.approx(low)
        assert same_size.psnr_at(found, 200) == pytest.approx(low + 3)
        assert same_size.psnr_at(found, 99) == pytest.approx(low)  # within the tolerance
        assert same_size.psnr_at(found, 97) is None
    assert same_size.psnr_at(version, 1000) == pytest.approx(own)  # the largest file
    lossless = same_size.version("c", bytes(100), picture, picture)
    assert same_size.psnr_at(lossless, 200) == np.inf


@pytest.mark.parametrize(
    ("size", "text"), [(1000, "1000"), (1020, "1020"), (980, "980"), (1021, "1021 (+2 %)"),
                       (900, "900 (-10 %)"), (1280, "1280 (+28 %)")],
)  # fmt: skip
def test_a_size_beyond_the_tolerance_is_followed_by_its_difference(picture, size, text):
    version = same_size.version("c", bytes(size), picture, picture)
    assert same_size.size_text(version, 1000) == text


def made(name, original, quality, noise):
    """Returns a comparison with an error of `noise` for the model and of 4 for the other codec."""
    rng = np.random.default_rng(0)
    versions = []
    for label, deviation in (("tfquant", noise), ("WebP", 4.0)):
        image = np.clip(original + rng.normal(0, deviation, original.shape), 0, 255)
        versions.append(
            same_size.version(label, label.encode() * 50, image.astype(np.uint8), original)
        )
    return Comparison(name, original, quality, tuple(versions))


def test_the_drawn_detail_is_where_the_versions_differ(picture):
    damaged = picture.copy()
    damaged[100:130, 20:50] = 255 - damaged[100:130, 20:50]
    versions = (same_size.version("a", b"1", damaged, picture),
                same_size.version("b", b"1", picture, picture))  # fmt: skip
    top, left, high, wide = comparison._busiest(Comparison("p", picture, 1.0, versions))
    assert top <= 100 and top + high >= 130 and left <= 20 and left + wide >= 50


@pytest.mark.slow
def test_the_page_has_the_worst_pictures_first_and_needs_no_network(picture):
    compared = [made("good", picture, 10, 2.0), made("</script>bad", picture, 10, 8.0)]
    maps = {(c.name, c.quality): np.full(picture.shape[:2], 0.25, np.float32) for c in compared}
    text = view.page("A title & more", "A note.", compared, maps, most=5)
    shown = json.loads(re.search(r"const pictures = (.*);\n", text)[1])
    assert [each["name"] for each in shown] == ["</script>bad", "good"]
    assert view._standing(compared[1:]).advantage < -5 < 5 < view._standing(compared[:1]).advantage
    assert "A title &amp; more" in text and text.count("</script>") == 1
    assert "@" not in re.sub(r"base64,[^\"]*", "", text).replace("@media", "")
    assert not re.search(r"""(src|href)=["']?http""", text)
    only = view.page("t", "n", compared, maps, most=1)
    assert len(shown_in(only)) == 1
    assert only.count("<td>good</td>") == 1  # the table is of all


@pytest.mark.parametrize("name", ["<!--<script>", "@SHOWN@ @PICTURES@", "\\1"])
def test_the_name_of_a_picture_cannot_break_the_page(picture, name):
    compared = [made(name, picture, 10, 2.0)]
    maps = {(name, compared[0].quality): np.full(picture.shape[:2], 0.25, np.float32)}
    text = view.page("t", "n", compared, maps, most=1)
    (script,) = re.findall(r"const pictures = (.*);\n", text)
    assert "<" not in script
    assert json.loads(script)[0]["name"] == name


def test_pictures_of_the_page_are_those_that_were_decoded(picture):
    compared = [made("p", picture, 10, 2.0)]
    maps = {("p", 10): np.zeros(picture.shape[:2], np.float32)}
    page = view.page("t", "n", compared, maps, most=1)
    (shown,) = json.loads(re.search(r"const pictures = (.*);\n", page)[1])
    for source, image in (
        (shown["original"], picture),
        (shown["qualities"][0]["versions"][0]["src"], compared[0].versions[0].image),
    ):
        data = base64.b64decode(source.partition("base64,")[2])
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), image
        )


@pytest.mark.slow
def test_the_rate_map_sums_to_the_bits_of_the_model(picture):
    models = tfquant.load("default")
    bits = models.rate_map(picture, 10)
    assert bits.shape == picture.shape[:2]
    assert np.sum(bits, dtype=np.float64) == pytest.approx(
        models.evaluate(picture, 10)["bits"], rel=1e-3
    )


def shown_in(page):
    """Returns the data of the pictures in a page."""
    return json.loads(re.search(r"const pictures = (.*);\n", page)[1])


def notes_in(page):
    """Returns the lines about pictures that are left out."""
    return re.findall("<li>(.*?)</li>", page)


def maps_of(compared):
    return {(c.name, c.quality): np.zeros(c.original.shape[:2], np.float32) for c in compared}


def replaced(comparison, place, image, size=200):
    """Returns a comparison in which one version has another picture and size."""
    versions = list(comparison.versions)
    label = versions[place].label
    versions[place] = same_size.version(label, bytes(size), image, comparison.original)
    return comparison._replace(versions=tuple(versions))


def test_curves_are_means_over_the_same_pictures_for_all_codecs(picture):
    """The other codec is lossless on a picture that is hard for the model."""
    easy, hard = made("easy", picture, 10, 4.0), made("hard", picture, 10, 20.0)
    hard = replaced(hard, 1, picture)
    compared = [easy, hard]
    page = view.page("t", "n", compared, maps_of(compared), most=1)
    only = view.page("t", "n", [easy], maps_of([easy]), most=1)
    psnr, ms_ssim = re.findall("<svg.*?</svg>", page)
    assert psnr == re.findall("<svg.*?</svg>", only)[0]
    assert psnr.count("<circle") == ms_ssim.count("<circle") == 2
    lines = notes_in(page)
    assert len(lines) == 2
    for line, name in zip(lines, ("PSNR", "MS-SSIM")):
        assert name in line and "1 of 2" in line and "without loss" in line
        assert "hard (WebP)" in line


def test_a_tiny_picture_hardly_changes_the_rates_of_the_curves(picture):
    """Its file has 200 bytes or more, 80 bits per pixel."""
    tiny = made("tiny", picture[:4, :5], 10, 2.0)
    measured = [view._measured([each]) for each in (made("p", picture, 10, 2.0), tiny)]
    points = view._points(measured, ["tfquant", "WebP"], "psnr")
    pixels = picture.shape[0] * picture.shape[1] + 20
    assert points["tfquant"][0][0] == pytest.approx(2 * 8 * 350 / pixels)
    assert points["WebP"][0][0] == pytest.approx(2 * 8 * 200 / pixels)
    psnr = [each.points[1].quality.psnr for each in measured]
    assert points["WebP"][0][1] == pytest.approx(np.mean(psnr))


@pytest.mark.parametrize("lossy_first", [True, False])
def test_a_picture_on_which_only_another_codec_is_lossless_comes_first(picture, lossy_first):
    bad, worst = made("bad", picture, 10, 16.0), made("worst", picture, 10, 2.0)
    worst = replaced(worst, 1, picture)
    compared = [bad, worst] if lossy_first else [worst, bad]
    page = view.page("t", "n", compared, maps_of(compared), most=2)
    first, second = shown_in(page)
    assert [first["name"], second["name"]] == ["worst", "bad"]
    assert view._standing([worst]).advantage == -np.inf
    assert first["standing"] == "only WebP is lossless at quality 10"
    assert view._standing([bad]).advantage < -5


def test_two_codecs_without_loss_are_equal(picture):
    each = replaced(replaced(made("p", picture, 10, 2.0), 0, picture), 1, picture)
    (shown,) = shown_in(view.page("t", "n", [each], maps_of([each]), most=1))
    assert view._standing([each]).advantage == 0
    assert shown["standing"] == "+0.00 dB; tfquant and WebP are lossless at quality 10"


def test_a_larger_file_does_not_count_as_one_of_the_same_size(picture):
    """It has a higher PSNR, and 28 % more bytes."""
    each = made("p", picture, 10, 6.0)
    larger = replaced(each, 1, each.versions[1].image, round(1.28 * each.size()))
    (shown,) = shown_in(view.page("t", "n", [larger], maps_of([larger]), most=1))
    assert shown["standing"] == "no other codec has so small a file at quality 10"
    assert shown["qualities"][0]["versions"][1]["size"].endswith(" bytes (+28 %)")
    own, other = (version.psnr() for version in larger.versions)
    versions = larger.versions[1]._replace(neighbour=(each.size() - 1, other - 2))
    between = larger._replace(versions=(larger.versions[0], versions))
    assert view._standing([between]).advantage == pytest.approx(own - other + 2, abs=0.05)


def test_small_pictures_have_no_curve_of_ms_ssim_and_are_named():
    small = made("small<", np.full((20, 30, 3), 100, np.uint8), 10, 2.0)
    page = view.page("t", "n", [small], maps_of([small]), most=1)
    assert page.count("<svg") == 1
    reason, none = notes_in(page)
    assert reason.endswith("sides of less than 161 pixels: small&lt;.")
    assert none == "There are no curves of MS-SSIM: no picture is left."


def test_the_page_keeps_the_pixels_of_one_picture_at_a_time(picture):
    alive: list[weakref.ref] = []
    most_alive = []

    def comparisons():
        for number in range(5):
            most_alive.append(sum(each() is not None for each in alive))
            for quality in (10, 20):
                each = made(f"p{number}", picture[:20, :30], quality, 2.0)
                maps[each.name, quality] = np.zeros((20, 30), np.float32)
                alive.append(weakref.ref(each.versions[0].image))
                yield each
                del each

    maps: dict = {}
    page = view.page("t", "n", comparisons(), maps, most=2)
    # The first picture is kept until the second one begins.
    assert most_alive == [0, 2, 0, 0, 0]
    assert len(shown_in(page)) == 2 and "2 of 5 pictures" in page


def test_comparisons_in_another_order_are_an_error(picture):
    first, second = made("a", picture, 10, 2.0), made("b", picture, 10, 2.0)
    others = [first._replace(quality=20), second._replace(quality=30)]
    compared = [first, second, *others]
    for wrong in (compared, [first, others[0], second], [first, second, first]):
        with pytest.raises(ValueError, match="qualities"):
            view.page("t", "n", wrong, maps_of(compared), most=2)


def test_the_slider_starts_with_the_best_other_codec(picture):
    each = made("p", picture, 10, 2.0)
    better = same_size.version("AVIF 4:2:0", bytes(200), each.versions[0].image, picture)
    three = each._replace(versions=(*each.versions, better))
    (shown,) = shown_in(view.page("t", "n", [three], maps_of([three]), most=1))
    assert shown["best"] == 2


@pytest.mark.slow
def test_the_demo_without_training_writes_table_figure_and_files(tmp_path, capsys, monkeypatch):
    """Uses one of the sample pictures."""
    find_pictures = pictures.find_pictures

    def first(*arguments):
        found = find_pictures(*arguments)
        assert len(found.pictures) > 1
        return found._replace(pictures=found.pictures[:1])

    monkeypatch.setattr(pictures, "find_pictures", first)
    assert cli.main(["demo", f"--out={tmp_path}", "--steps=0"]) == 0
    printed = capsys.readouterr().out
    table = (tmp_path / "comparison.md").read_text()
    assert table.strip() in printed
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    psnr = {head.partition(" PSNR")[0]: i for i, head in enumerate(rows[0]) if "PSNR" in head}
    assert len({row[0] for row in rows[2:]}) == 1 and len(rows) > 4
    for row in rows[2:]:
        assert float(row[psnr["tfquant"]]) > float(row[psnr["JPEG 4:2:0"]]) + 2
        (file,) = (tmp_path / "files").glob(f"{row[0]}_quality_{float(row[1]):.0f}.tfq")
        assert file.stat().st_size == int(row[2])
    with Image.open(tmp_path / "comparison.png") as figure:
        assert figure.width > 1000


@pytest.mark.parametrize("steps", ["-50", "49"])
def test_the_demo_rejects_steps_that_are_not_whole_epochs(steps, tmp_path, capsys):
    assert cli.main(["demo", f"--out={tmp_path}", f"--steps={steps}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_demo_refuses_a_folder_with_other_files_before_any_work(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert cli.main(["demo", f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"tfquant: {tmp_path}: contains other files (mine); name a new folder with --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and not printed.out


@pytest.mark.parametrize("content", ["another experiment", "no run", "another length"])
def test_the_demo_refuses_other_runs_before_any_work(tmp_path, capsys, content):
    run = tmp_path / "sua_ste"
    run.mkdir()
    experiment = demo._experiment("sua_ste", 500)
    if content == "no run":
        (run / "notes.txt").write_text("mine")
    else:
        changes = {"lmbda": 0.5} if content == "another experiment" else {"joint_steps": 50}
        folder.prepare(str(run), dataclasses.replace(experiment, **changes))
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["demo", f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"tfquant: {run}") and printed.err.count("\n") == 1
    assert printed.err.endswith("remove it, or name a new folder with --out\n")
    assert sorted(tmp_path.rglob("*")) == before and not printed.out


def test_the_demo_continues_an_earlier_demo(tmp_path):
    for plan in demo.PLANS:
        folder.prepare(str(tmp_path / plan), demo._experiment(plan, 500))
    for name in ("gap.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    demo.check_folder(tmp_path)
    demo.check_runs(tmp_path, 500)
