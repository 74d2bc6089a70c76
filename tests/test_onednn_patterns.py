"""The search for oneDNN's defects finds each of them at any place in a graph, and nothing else.

Without these tests, a broken search would let every guard pass. The guards are in `conformance`
(all codecs), `layers/test_blocks.py`, `layers/test_rectifier.py`, `entropy/test_models.py` and
`analysis/test_networks.py`.
"""

import pytest
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port


def gradients(function, *inputs):
    """Returns gradients of the sum of squares with respect to all inputs."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(tf.square(function(*inputs)))
    return tape.gradient(loss, inputs)


def in_a_loop(function):
    """Returns the function in the body of a loop, in a function that another function calls."""

    @tf.function(autograph=False)
    def looped(x):
        return tf.map_fn(function, x[None])

    return lambda x: looped(x) + 1.0


def sum_behind_convolution(x):
    return x + tf.nn.bias_add(tf.nn.conv2d(x, tf.ones([3, 3, 4, 4]), 1, "SAME"), tf.ones([4]))


def row_and_column(x):
    """Computes pattern (b) on `x: [5, 3, 4]`."""
    return tf.ones([5, 1, 3]) @ x + tf.matmul(tf.ones([5, 3, 1]), x, transpose_a=True)


def perceptron(x):
    """Computes the last layer's forward product and the first layer's gradient of `x: [7, 5,
    1]`.
    """
    x = tf.nn.relu(tf.einsum("nsi,sio->nso", x, tf.ones([5, 1, 4])))
    return tf.einsum("nsi,sio->nso", x, tf.ones([5, 4, 1]))


def strided(x):
    return tf.nn.conv2d(x, tf.ones([1, 1, 4, 6]), 2, "SAME")


def strided_transposed(x):
    return tf.nn.conv2d_transpose(x, tf.ones([1, 1, 6, 4]), [2, 16, 16, 6], 2, "SAME")


def product_with_matrix(x):
    return x @ tf.ones([4, 6])


PICTURE, MATRICES = tf.ones([2, 8, 8, 4]), tf.ones([5, 3, 4])
HARMFUL = {
    "row and column": ("(b)", row_and_column, MATRICES),
    "row and column in a loop": ("(b)", in_a_loop(row_and_column), MATRICES),
    "einsum's gradient": ("(b)", lambda x: gradients(perceptron, x), tf.ones([7, 5, 1])),
    "filter's gradient": ("(c)", lambda x: gradients(strided, x), PICTURE),
    "in a loop": ("(c)", in_a_loop(lambda x: gradients(strided, x)[0]), PICTURE),
    "transposed": ("(c)", strided_transposed, PICTURE),
    "product": ("(d)", product_with_matrix, tf.ones([5, 1, 3, 4])),
    "product in a loop": ("(d)", in_a_loop(product_with_matrix), tf.ones([5, 1, 3, 4])),
    "one matrix of rank 4": ("(d)", lambda x: x @ tf.ones([1, 1, 4, 6]), tf.ones([5, 1, 3, 4])),
    "its gradient": ("(d)", lambda x: gradients(product_with_matrix, x), tf.ones([5, 1, 3, 4])),
}
HARMLESS = {
    "3x3 of stride 2": (
        lambda x: gradients(lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 4, 4]), 2, "SAME"), x),
        PICTURE,
    ),
    "1x1 of stride 1": (
        lambda x: gradients(lambda x: tf.nn.conv2d(x, tf.ones([1, 1, 4, 4]), 1, "SAME"), x),
        PICTURE,
    ),
    "products of other sizes": (
        lambda x: tf.ones([5, 1, 3]) @ x + tf.matmul(x[:, :2, :1], x[:, :2], transpose_a=True),
        MATRICES,
    ),
    "wide products": (lambda x: gradients(lambda x: tf.ones([5, 6, 3]) @ x, x), MATRICES),
    "rank 3": (product_with_matrix, MATRICES),
    "rank 4, two": (product_with_matrix, tf.ones([5, 2, 3, 4])),
    "rank 4, tensordot": (lambda x: tf.tensordot(x, tf.ones([4, 6]), 1), tf.ones([5, 1, 3, 4])),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_a_pattern_is_found_and_no_other(onednn, case):
    pattern, function, x = HARMFUL[case]
    graph = tf.function(function, autograph=False).get_concrete_function(x).graph
    assert {text.split()[0] for text in onednn.in_traced(graph)} == {pattern}


@pytest.mark.parametrize("case", HARMLESS)
def test_nothing_is_found_in_similar_graphs(onednn, case):
    function, x = HARMLESS[case]
    graph = tf.function(function, autograph=False).get_concrete_function(x).graph
    assert onednn.in_traced(graph) == []


def test_unknown_sizes_count_as_every_size(onednn):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 4])])
    def product(x):
        return x @ tf.ones([4, 6])

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(None), tf.TensorSpec(None)])
    def of_any_rank(x, y):
        return tf.raw_ops.BatchMatMulV2(x=x, y=y)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, 4, 6])])
    def gradient(kernel):
        return gradients(lambda k: tf.nn.conv2d(tf.ones([2, 8, 8, 4]), k, 2, "SAME"), kernel)

    for function, pattern in ((product, "(d)"), (of_any_rank, "(d)"), (gradient, "(c)")):
        found = onednn.in_traced(function.get_concrete_function().graph)
        assert {text.split()[0] for text in found} == {pattern}


@pytest.mark.parametrize("wrapped", [lambda f: f, in_a_loop])
def test_a_sum_in_a_convolution_is_found(onednn, wrapped):
    if not _pywrap_util_port.IsMklEnabled():
        pytest.skip("this TensorFlow runs without oneDNN and takes no sum into a convolution")
    (found,) = onednn.run(wrapped(sum_behind_convolution), PICTURE)[1]
    assert found.startswith("(a) _FusedConv2D")


def test_a_function_that_is_not_inlined_is_refused(onednn):
    """Guards against a fused sum that the optimized graph does not show."""
    apart = tf.function(
        sum_behind_convolution, autograph=False, experimental_attributes={"_noinline": True}
    )
    with pytest.raises(AssertionError, match="not inlined.*sum_behind_convolution"):
        onednn.run(lambda x: apart(x) + 1.0, PICTURE)


def test_a_graph_with_another_pattern_does_not_run(onednn):
    ran = tf.Variable(False)

    def function(x):
        ran.assign(True)
        return product_with_matrix(x)

    with pytest.raises(AssertionError, match=r"\(d\) BatchMatMulV2"):
        onednn.run(function, tf.ones([5, 1, 3, 4]))
    assert not ran


def test_a_graph_that_has_run_is_refused(onednn):
    """Guards against a missing optimized graph: TensorFlow shows it only once."""
    function = tf.function(lambda x: x + 1.0, autograph=False)
    assert onednn.run(function, PICTURE)[1] == []
    with pytest.raises(AssertionError, match="had run before"):
        onednn.run(function, PICTURE)
