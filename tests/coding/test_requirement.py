"""A condition that does not hold gives the same text in a graph and in eager code."""

import pytest
import tensorflow as tf

from tfquant.coding.requirement import require

_TEXT = "{name} has {count} streams: too many"


def _checked(count):
    with tf.control_dependencies([require(count < 3, _TEXT, name="a.tfq", count=count)]):
        return tf.identity(count)


@pytest.mark.parametrize("is_graph", [False, True], ids=["eager", "graph"])
def test_a_graph_and_eager_code_refuse_with_the_filled_text(is_graph):
    checked = tf.function(_checked) if is_graph else _checked
    assert checked(tf.constant(2)) == 2
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
        checked(tf.constant(3))
    filled = "a.tfq has 3 streams: too many"
    expected = f"assertion failed: [{filled}]" if is_graph else filled
    assert expected in info.value.message.splitlines()
