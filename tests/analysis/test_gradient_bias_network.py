"""Fig. 6: the bias of a network's gradient, compared with a sum over four corners; the images."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfquant.analysis import small_images
from tfquant.analysis.experiment import AnalysisError
from tfquant.analysis.gradient_bias_network import RUNS, Autoencoder
from tfquant.analysis.maps import Method

PIXELS = small_images.load("generated").pixels


def corner_bias(network, x, y):
    """Returns the bias of SR with STE for one run: sum over corners of p grad D minus slope of
    sum p D.
    """
    kernels = [k.numpy().astype(float) for k in network.g_s.kernels]
    biases = [b.numpy().astype(float) for b in network.g_s.biases]

    def distortion_and_gradient(run, corner, image):
        h = corner / 3.0 @ kernels[0][run] + biases[0][0, run]
        slope = np.where(h > 0, 1.0, 0.2)
        out = (slope * h) @ kernels[1][run] + biases[1][0, run] + PIXELS.mean(0)
        error = out - image
        gradient = 2 * kernels[0][run] @ (slope * (kernels[1][run] @ error)) / 3.0
        return np.sum(error**2), gradient

    found = np.zeros([len(x), RUNS])
    for n, run in np.ndindex(found.shape):
        floor = np.floor(y[n, run])
        f = y[n, run] - floor
        estimate, slope = np.zeros(2), np.zeros(2)
        for a, b in np.ndindex(2, 2):
            D, gradient = distortion_and_gradient(run, floor + [a, b], x[n])
            p = np.array([f[0] if a else 1 - f[0], f[1] if b else 1 - f[1]])
            estimate += p[0] * p[1] * gradient
            slope += D * np.array([(2 * a - 1) * p[1], (2 * b - 1) * p[0]])
        found[n, run] = np.linalg.norm(estimate - slope)
    return found


def test_the_bias_is_the_sum_over_the_four_corners():
    network = Autoencoder(PIXELS, Method("sr"), (8, 8), steps=0)
    x = PIXELS[:12]
    bias, gradient = network.bias(x)
    expected = corner_bias(network, x, network.latents(x).numpy().astype(float))
    np.testing.assert_allclose(bias, expected, rtol=1e-3, atol=1e-4)
    assert expected.min() > 0.0 and gradient.shape == (12, RUNS)


def test_a_pathwise_estimate_has_no_bias():
    network = Autoencoder(PIXELS, Method("aun"), (8, 8), steps=0)
    bias, gradient = network.bias(PIXELS[:8])
    assert bias.max() < 0.03 * gradient.max()


def test_generated_images_are_the_same_every_time_and_not_all_alike():
    again = small_images.load("generated").pixels
    np.testing.assert_array_equal(PIXELS, again)
    assert PIXELS.shape == (1800, 64)
    assert PIXELS.min() >= 0.0 and PIXELS.max() <= 1.0
    assert PIXELS.std(axis=0).min() > 0.05


def test_without_scikit_learn_the_name_says_that_images_are_generated(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    images = small_images.load("digits")
    assert "generated" in images.name and "scikit-learn is not installed" in images.name
    np.testing.assert_array_equal(images.pixels, PIXELS)


def test_unknown_and_missing_data_sets_are_refused_in_a_line(monkeypatch):
    with pytest.raises(AnalysisError, match="unknown data set 'mnits'; known: digits, generated"):
        small_images.load("mnits")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(AnalysisError, match="needs tensorflow-datasets"):
        small_images.load("tfds:mnist")
