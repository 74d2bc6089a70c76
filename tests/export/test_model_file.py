"""Tests of the reasons that an exported model gives for errors of TensorFlow."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfquant
from tfquant.coding.requirement import require
from tfquant.export import manifest_file, model_file

INT = tf.TensorSpec([], tf.int32)
VECTOR = tf.TensorSpec(None)


def refuse(count):
    with tf.control_dependencies([tf.debugging.Assert(count < 3, ["the file is forged"])]):
        return tf.identity(count)


def of_three(x):
    return tf.ensure_shape(x, [3])


def saved_and_loaded(function, spec, folder):
    module = tf.Module()
    module.function = tf.function(function, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(folder))
    return tf.saved_model.load(str(folder)).function


def in_a_lambda(x):
    return tf.function(lambda x: refuse(x), autograph=False)(x)


def in_a_loop(x):
    def loop(count):
        return tf.while_loop(lambda count: count < 5, lambda count: [refuse(count) + 1], [count])

    return tf.function(lambda x: loop(x), autograph=False)(x)


RAISED = {
    "graph": (lambda _: tf.function(refuse, autograph=False)(3), "the file is forged"),
    "function with a lambda": (lambda _: in_a_lambda(3), "the file is forged"),
    "loop": (lambda _: in_a_loop(0), "the file is forged"),
    "operation of a graph": (
        lambda _: tf.function(lambda x: of_three(x), input_signature=[VECTOR])(tf.zeros([2])),
        "Shape of tensor x [2] is not compatible with expected shape [3].",
    ),
    "saved": (lambda folder: saved_and_loaded(refuse, INT, folder)(3), "the file is forged"),
    "operation, saved": (
        lambda folder: saved_and_loaded(of_three, VECTOR, folder)(tf.zeros([2])),
        "Shape of tensor x [2] is not compatible with expected shape [3].",
    ),
    "eager operation": (
        lambda _: of_three(tf.zeros([2])),
        "Shape of tensor input [2] is not compatible with expected shape [3].",
    ),
    "eager condition": (
        lambda _: require(tf.constant(False), "{count} streams: too many", count=3),
        "3 streams: too many",
    ),
}


@pytest.mark.parametrize("case", RAISED)
def test_the_reason_in_an_error_is_one_line(case, tmp_path):
    function, reason = RAISED[case]
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
        function(tmp_path)
    assert model_file._cause(info.value) == reason


@pytest.mark.parametrize(
    "message, reason",
    [
        ("{{function_node __wrapped__Add}} out of\nmemory [Op:AddV2] name: ", "out of memory"),
        ("{{function_node __wrapped__Add}}  [Op:AddV2] name: ", "InvalidArgumentError"),
        ("", "InvalidArgumentError"),
    ],
    ids=["two lines", "eager operation without a reason", "nothing"],
)
def test_the_reason_in_a_message_is_one_line(message, reason):
    """Tests messages that no operation of this package is known to have."""
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert model_file._cause(error) == reason


@pytest.mark.parametrize("function", ["compress", "evaluate", "rate_map"])
@pytest.mark.parametrize(
    "picture, found",
    [
        (np.ones((4, 5, 3), np.float32), "float32 [4, 5, 3]"),
        (np.ones((4, 5, 3), bool), "bool [4, 5, 3]"),
        (np.ones((4, 5, 3), np.uint16), "uint16 [4, 5, 3]"),
        (np.ones((4, 5), np.uint8), "uint8 [4, 5]"),
        (np.ones((4, 5, 4), np.uint8), "uint8 [4, 5, 4]"),
        (np.ones((1, 4, 5, 3), np.uint8), "uint8 [1, 4, 5, 3]"),
        (np.ones((0, 5, 3), np.uint8), "uint8 [0, 5, 3]"),
        ([[[1, 2, 3]]], "int64 [1, 1, 3]"),
        (None, "NoneType"),
        ("picture.png", "str"),
        (b"picture", "bytes"),
        (Path("picture.png"), type(Path()).__name__),
        ([[1], [1, 2]], "list"),
    ],
)
def test_an_array_that_is_no_picture_is_rejected(function, picture, found):
    folder = str(Path(tfquant.__file__).parent / "pretrained" / "photographs" / "q10")
    model = model_file.ExportedModel(manifest_file.read_manifest(folder), None)
    with pytest.raises(ValueError) as info:
        getattr(model, function)(picture)
    assert str(info.value) == (
        f"a picture must be uint8 [H, W, 3] with at least one pixel, got {found}"
    )


@pytest.mark.parametrize("quality", ["high", [50], np.array([50.0]), float("nan"), -1, 101])
def test_a_quality_that_is_no_number_of_the_scale_is_rejected(quality):
    folder = str(Path(tfquant.__file__).parent / "pretrained" / "photographs" / "q10")
    model = model_file.ExportedModel(manifest_file.read_manifest(folder), None)
    with pytest.raises(ValueError, match="quality must be from 0 to 100; got "):
        model.compress(np.zeros((4, 4, 3), np.uint8), quality)
