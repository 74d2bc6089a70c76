"""The file of weights, against files that are written here from its documentation."""

import json
import struct
import zlib

import numpy as np
import pytest

from tfquant.export import weight_file

MAGIC = b"\x89TFQW\r\n\x01"


def written(tensors, streams):
    """A file, from the table at the head of `weight_file.py`."""
    streams = [zlib.compress(stream) for stream in streams]
    sizes = iter(map(len, streams))
    for tensor, count in tensors:
        tensor["sizes"] = [next(sizes) for _ in range(count)]
    header = json.dumps({"tensors": [tensor for tensor, _ in tensors]}).encode()
    return MAGIC + struct.pack("<I", len(header)) + header + b"".join(streams)


def test_a_file_of_both_encodings_is_read():
    plain = np.array([[1.5, -2.0, 3e-9]], "<f4")
    steps, q = np.array([0.5, 3.0], "<f4"), np.array([[0, -1], [2, 700], [-16384, 16383]])
    low, middle, high = bytearray(3), bytearray(), bytearray()
    for i, integer in enumerate(q.ravel().tolist()):
        u = integer + 0x8800
        low[i // 2] |= (u & 15) << (4 * (i % 2))
        middle.append(u >> 4 & 255)
        high.append(u >> 12)
    data = written(
        [
            ({"name": "a", "shape": [1, 3], "encoding": "float32"}, 1),
            ({"name": "b", "shape": [3, 2], "encoding": "integers", "axis": 1}, 4),
        ],
        [plain.tobytes(), steps.tobytes(), bytes(low), bytes(middle), bytes(high)],
    )
    (name_a, a), (name_b, b) = weight_file.load(data)
    assert (name_a, name_b) == ("a", "b")
    np.testing.assert_array_equal(a, plain)
    np.testing.assert_array_equal(b, q * steps)
    assert a.dtype == b.dtype == np.float32


@pytest.fixture(name="weights")
def _weights():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 5, 20, 60)) * np.geomspace(1e-3, 10, 60)
    kernel[..., 7] = 0
    deconv = rng.laplace(size=(5, 5, 30, 41)) * np.geomspace(1, 100, 30)[:, None]
    weights = {"conv/kernel": kernel, "deconv/kernel": deconv, "bias": rng.normal(size=60)}
    weights["bound"] = np.float64(0.1)
    return [(name, array.astype(np.float32)) for name, array in weights.items()]


def test_without_a_step_every_weight_comes_back(weights):
    for (name, array), (name_back, back) in zip(
        weights, weight_file.load(weight_file.dump(weights))
    ):
        assert name == name_back
        np.testing.assert_array_equal(back, array)


def test_a_step_bounds_the_error_of_each_output_channel(weights):
    loaded = dict(weight_file.load(weight_file.dump(weights, 1 / 128)))
    for name, axis in (("conv/kernel", (0, 1, 2)), ("deconv/kernel", (0, 1, 3))):
        array = dict(weights)[name].astype(np.float64)
        rms = np.sqrt(np.mean(array**2, axis))
        error = np.max(np.abs(loaded[name] - array), axis)
        assert np.all(error <= 0.5001 / 128 * rms)
        # The whole step is used: the error is that of rounding, not of something finer.
        assert np.all(error[rms > 0] > 0.45 / 128 * rms[rms > 0])
    np.testing.assert_array_equal(loaded["bias"], dict(weights)["bias"])


def test_a_step_makes_the_file_about_as_small_as_the_entropy_says():
    """Gaussian weights with step rms/128 have an entropy of 9.05 bits."""
    kernel = np.random.default_rng(1).normal(size=(5, 5, 128, 128)).astype(np.float32)
    size = len(weight_file.dump([("kernel", kernel)], 1 / 128))
    bits = np.log2(np.sqrt(2 * np.pi * np.e) * 128)
    assert bits < 8 * size / kernel.size < 1.02 * bits


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"PK" + data[2:],
        lambda data: data[:200],
        lambda data: data[:-1],
        lambda data: data[:12] + b"?" + data[13:],
        lambda data: data[:-40] + bytes(20) + data[-20:],
    ],
)
def test_damaged_files_are_named(weights, change):
    with pytest.raises(ValueError, match=r"^weights.tfqw is corrupt"):
        weight_file.load(change(weight_file.dump(weights)))


def test_another_format_asks_for_an_update(weights):
    data = weight_file.dump(weights)
    with pytest.raises(ValueError, match="another format: update tfquant"):
        weight_file.load(data[:7] + b"\x02" + data[8:])


@pytest.mark.parametrize("step", [0, -1, 1, float("nan")])
def test_steps_that_are_none_are_refused(weights, step):
    with pytest.raises(ValueError, match="step must be above 0 and below 1"):
        weight_file.dump(weights, step)


def test_integers_that_exceed_the_format_are_refused(weights):
    with pytest.raises(ValueError, match="the format has 28672"):
        weight_file.dump(weights, 1e-5)
