"""Tests of the reasons that an exported model gives for errors of TensorFlow."""

import pytest
import tensorflow as tf

from tfquant.export import model_file

GRAPH = """Graph execution error:

Detected at node Assert defined at (most recent call last):
<stack traces unavailable>
assertion failed: [the file is forged]
\t [[{{node Assert}}]] [Op:__inference_decode_12]"""


@pytest.mark.parametrize(
    "message, reason",
    [
        (GRAPH, "the file is forged"),
        ("{{function_node __wrapped__Decode}} `encoded` is empty: [0] [Op:Decode] name: ",
         "`encoded` is empty: [0]"),
        ("{{function_node __wrapped__Add}} out of\nmemory [Op:AddV2] name: ", "out of memory"),
        ("too many streams", "too many streams"),
        ("", "InvalidArgumentError"),
    ],
    ids=["graph", "eager operation", "two lines", "plain", "none"],
)  # fmt: skip
def test_the_reason_in_an_error_is_one_line(message, reason):
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert model_file._cause(error) == reason
