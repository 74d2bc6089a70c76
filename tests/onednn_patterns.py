"""Finds four patterns in a graph that oneDNN in TensorFlow computes wrongly.

(a) a convolution and a sum as one operation, several threads: TensorFlow 2.14 to 2.22
(b) a batched product with a row, next to one with a transposed column, several threads: 2.14
(c) the filter gradient of a strided 1x1 convolution, any number of threads: 2.14 to 2.22
(d) a product of `[n, 1, r, k]` with one matrix, any number of threads: 2.16 to 2.21

Each of them writes outside its memory: the process ends, or values are wrong. The scripts
`benchmarks/onednn_*.py` reproduce (a) and (c). The `onednn` fixture is this module.

The optimizer creates (a), so (a) is searched in the optimized graph. The others are searched in the
traced graph, where shapes are known. An unknown size matches every size. Every function returns
text, one item for each occurrence.
"""

from __future__ import annotations

import itertools
from typing import Callable, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import context


def run(function: Callable, *arguments) -> tuple:
    """Calls a function in a separate graph. Returns its outputs, and occurrences of (a) in that
    graph.

    The graph must not contain the other patterns: an AssertionError lists them before the graph
    runs, because running it may end the process. A `tf.function` must not have run before, because
    TensorFlow optimizes a graph only once. All functions must be inlined in the optimized graph,
    because TensorFlow optimizes the others later and does not show the result.
    """
    if not hasattr(function, "get_concrete_function"):
        function = tf.function(function, autograph=False)
    graph = function.get_concrete_function(*arguments).graph
    found = in_traced(graph)
    assert not found, found
    with context.collect_graphs(optimized=True) as optimized:
        outputs = function(*arguments)
    assert optimized, "this graph had run before"
    called = _called(optimized)
    assert not called, f"these functions are not inlined in the optimized graph: {called}"
    return outputs, fused_sums(optimized)


def in_traced(*graphs) -> list:
    """Returns patterns (b), (c) and (d) in graphs that run in one process, and in their
    functions.
    """
    operations = [o for graph in graphs for g in _with_functions(graph) for o in g.get_operations()]
    return [
        *confusable(operations),
        *map(_described("(c)"), filter(_is_strided_gradient, operations)),
        *map(_described("(d)"), filter(_is_product_with_one_matrix, operations)),
    ]


def fused_sums(graph_defs) -> list:
    """Returns pattern (a) in optimized graphs."""
    return [
        f"(a) {node.op} {node.name}"
        for node in _nodes(graph_defs)
        if b"Add" in node.attr["fused_ops"].list.s
    ]


def _nodes(graph_defs) -> list:
    """Returns the nodes of graphs and of their functions."""
    return [
        node
        for graph in graph_defs
        for nodes in (graph.node, *(function.node_def for function in graph.library.function))
        for node in nodes
    ]


def _called(graph_defs) -> list:
    """Returns the names of the functions that graphs call: in loops, in branches and directly."""
    attributes = [attr for node in _nodes(graph_defs) for attr in node.attr.values()]
    functions = [f for attr in attributes for f in (attr.func, *attr.list.func)]
    return sorted({function.name for function in functions if function.name})


def confusable(operations) -> list:
    """Returns pattern (b): pairs of products that oneDNN's cache mixes up.

    They have the same sizes, and an operand with one row or one column is transposed in only one of
    them. Only the left operand is known to cause errors; this function forbids both.
    """
    products = {}
    for operation in operations:
        for product in _products(operation):
            products.setdefault(product, operation)
    return [
        f"(b) {one.name} and {other.name}: {p}"
        for (p, one), (q, other) in itertools.combinations(products.items(), 2)
        if _confused(p, q)
    ]


class _Product(NamedTuple):
    """A batched matrix product as oneDNN receives it."""

    batch: tuple
    sizes: tuple  # for the left and the right matrix
    turned: tuple  # true if it is transposed in memory, for each of them


def _confused(p: _Product, q: _Product) -> bool:
    flat = [(*product.batch, *product.sizes[0], *product.sizes[1]) for product in (p, q)]
    if len(flat[0]) != len(flat[1]) or not all(map(_may_equal, *flat)):
        return False
    narrow = [any(map(_may_be_1, (*a, *b))) for a, b in zip(p.sizes, q.sizes)]
    same = [a == b for a, b in zip(p.turned, q.turned)]
    return not all(same) and all(n or s for n, s in zip(narrow, same))


def _products(operation) -> list:
    """Returns the batched products of an operation: one, or none."""
    shapes = [_shape(tensor) for tensor in operation.inputs]
    if operation.type.startswith("BatchMatMul"):
        turned = tuple(operation.get_attr(name) for name in ("adj_x", "adj_y"))
        if None in shapes:  # unknown rank
            shapes = [(None,) * 3] * 2
        sizes = tuple(s[-2:][:: -1 if t else 1] for s, t in zip(shapes, turned))
        batch = max((s[:-2] for s in shapes), key=len)
        return [_Product(batch, sizes, turned)]
    if operation.type == "Einsum" and len(shapes) == 2:
        return _einsum_product(operation.get_attr("equation").decode(), shapes)
    return []


def _einsum_product(equation: str, shapes: list) -> list:
    """Returns the product of an einsum without ellipsis.

    Its operands get their axes in the order batch, free, contracted. An operand with the order
    batch, contracted, free stays as it is, and counts as transposed.
    """
    inputs, result = equation.split("->")
    names = inputs.split(",")
    sizes = {a: size for axes, shape in zip(names, shapes) for a, size in zip(axes, shape)}
    batch = [a for a in names[0] if a in names[1] and a in result]
    contracted = [a for a in names[0] if a in names[1] and a not in result]
    if not batch:
        return []  # one plain matrix product
    free = [[a for a in axes if a not in batch + contracted] for axes in names]
    as_it_is = [list(axes) == batch + contracted + f for axes, f in zip(names, free)]
    left, inner, right = (
        _product_of(sizes[a] for a in axes) for axes in (free[0], contracted, free[1])
    )
    turned = (as_it_is[0], not as_it_is[1])
    return [_Product(tuple(sizes[a] for a in batch), ((left, inner), (inner, right)), turned)]


def _is_strided_gradient(operation) -> bool:
    """Returns true for pattern (c), and for the related input gradient, which is not known to
    fail.
    """
    if operation.type not in ("Conv2DBackpropFilter", "Conv2DBackpropInput"):
        return False
    by_filter = operation.type == "Conv2DBackpropFilter"
    kernel = _shape(operation.outputs[0] if by_filter else operation.inputs[1]) or (None, None)
    return max(operation.get_attr("strides")) > 1 and all(map(_may_be_1, kernel[:2]))


def _is_product_with_one_matrix(operation) -> bool:
    """Returns true for pattern (d): TensorFlow repeats one matrix n times, by a stride of 0 in
    memory.

    TensorFlow 2.17 and 2.21 crash or compute wrong values if the rank is 4, the second size is 1,
    and n and r are above 1. They do not at rank 3 or 5, with another second size, or with n
    matrices. Small sizes crash only with two threads, larger ones also with one. An einsum, a
    tensordot and a Keras Dense layer create other operations and are not affected.
    """
    if not operation.type.startswith("BatchMatMul"):
        return False
    left, right = (_shape(tensor) or (None,) * 4 for tensor in operation.inputs)
    may_repeat = all(map(_may_be_1, right[:-2]))
    return len(left) == 4 and left[0] != 1 and _may_be_1(left[1]) and may_repeat


def _with_functions(graph) -> list:
    """Returns a graph and the graphs of all functions that it calls: loops, branches, gradients."""
    found = {}

    def visit(graph):
        for name, function in graph._functions.items():
            if name not in found:
                found[name] = function.graph
                visit(function.graph)

    visit(graph)
    return [graph, *found.values()]


def _described(pattern: str) -> Callable:
    def text(operation) -> str:
        shapes = ", ".join(str(tensor.shape) for tensor in operation.inputs)
        return f"{pattern} {operation.type} {operation.name} of {shapes}"

    return text


def _shape(tensor) -> tuple | None:
    """Returns the sizes, None if unknown; None for an unknown rank."""
    return None if tensor.shape.rank is None else tuple(tensor.shape)


def _product_of(sizes) -> int | None:
    total = 1
    for size in sizes:
        total = None if size is None or total is None else total * size
    return total


def _may_be_1(size) -> bool:
    return size is None or size == 1


def _may_equal(a, b) -> bool:
    return a is None or b is None or a == b
