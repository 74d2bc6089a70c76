"""Tests the search for models and the measurement of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tfquant.data import images
from tfquant.evaluation import EvaluationError, models
from tfquant.evaluation.pictures import Picture


def export(folder):
    folder.mkdir(parents=True)
    (folder / "tfquant.json").write_text("{}")


def test_runs_and_exported_models_are_both_found(tmp_path):
    export(tmp_path / "low" / "export")
    export(tmp_path / "high")
    low, high = models.find_models([str(tmp_path / "low"), str(tmp_path / "high")])
    assert (low.name, low.path) == ("low", str(tmp_path / "low" / "export"))
    assert (high.name, high.path) == ("high", str(tmp_path / "high"))


def test_models_are_found_in_tensorflows_file_systems(tmp_path):
    export(tmp_path / "low" / "export")
    (entry,) = models.find_models([f"file://{tmp_path}/low"])
    assert (entry.name, entry.path) == ("low", f"file://{tmp_path}/low/export")


def test_models_of_the_same_name_get_different_names(tmp_path):
    for parent in "ab":
        export(tmp_path / parent / "run" / "export")
    names = [m.name for m in models.find_models([f"{tmp_path}/a/run", f"{tmp_path}/b/run"])]
    assert names[0] == "run" and names[1].endswith("_b_run")


def test_a_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(EvaluationError, match="has no exported model; expected a training run"):
        models.find_models([str(tmp_path)])
    with pytest.raises(EvaluationError, match="^'.*nowhere' is not a folder"):  # of whichever flag
        models.find_models([str(tmp_path / "nowhere")])


@pytest.fixture
def pictures(tmp_path, make_photograph):
    found = []
    for i, size in enumerate([(40, 50), (40, 50), (31, 17)]):
        images.write_image(tmp_path / f"{i}.png", make_photograph(*size, seed=i))
        found.append(Picture(str(i), tmp_path / f"{i}.png"))
    return found


def test_the_rate_is_that_of_the_stored_file_and_the_picture_that_of_its_decoder(
    pictures, tmp_path, subsampling_model
):
    model, seen = subsampling_model(4), []
    rows = models.evaluate(model, pictures, tmp_path / "out", seen.append)
    assert rows == seen and [row.name for row in rows] == ["0", "1", "2"]
    for row, picture in zip(rows, pictures):
        image, pixels = picture.read(), np.prod(picture.read().shape[:2])
        data = (tmp_path / "out" / f"{row.name}.tfq").read_bytes()
        decoded = images.read_image(tmp_path / "out" / f"{row.name}.png")
        np.testing.assert_array_equal(decoded, model.decompress(data))
        error = np.mean((decoded.astype(float) - image) ** 2)
        np.testing.assert_allclose(row.psnr, 10 * np.log10(255**2 / error), rtol=1e-5)
        np.testing.assert_allclose(row.bpp, 8 * len(data) / pixels)
        np.testing.assert_allclose(row.estimated_bpp, (8 * len(data) - 32) / pixels)


def test_each_size_is_run_once_without_timing(pictures, subsampling_model):
    model = subsampling_model(4)
    models.evaluate(model, pictures, None, lambda row: None)
    assert model.calls == 3 + 3 + 2  # Timed, evaluated, and one for each of the two sizes.


def test_a_model_without_finite_bits_stops_the_report(pictures, subsampling_model):
    class Broken(subsampling_model):
        def evaluate(self, image):
            return {**super().evaluate(image), "bits": float("nan")}

    with pytest.raises(EvaluationError, match="0: the model assigns nan bits"):
        models.evaluate(Broken(4), pictures, None, lambda row: None)


def test_a_decoder_that_disagrees_with_evaluation_stops_the_report(pictures, subsampling_model):
    class Wrong(subsampling_model):
        def evaluate(self, image):
            result = super().evaluate(image)
            result["image"] = result["image"].copy()
            result["image"][5, 7, 1] ^= 1
            return result

    with pytest.raises(EvaluationError, match="^0: the decoded picture differs .* in 1 of 2000"):
        models.evaluate(Wrong(4), pictures, None, lambda row: None)
