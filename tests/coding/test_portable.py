"""Tests the portable coder alone and, if they are installed, against the coder's operations."""

from __future__ import annotations

import hashlib
import types

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding import portable, range_coder
from tfquant.coding.pmf import TOTAL


@pytest.fixture(scope="module", name="operations")
def _operations(operations_module):
    """Returns the module with the operations; skips the test if there is none."""
    del operations_module
    from tfquant.coding import operations

    return operations


def rows_of(rng, count):
    """Returns cumulative frequencies of all kinds of rows: certain, binary, uniform, nearly
    certain.
    """
    rows = [[0, TOTAL], [0, 1, TOTAL], [0, TOTAL - 1, TOTAL], [0, TOTAL // 2, TOTAL]]
    while len(rows) < count:
        size = int(rng.integers(2, 60))
        inner = np.sort(rng.choice(np.arange(1, TOTAL), size - 1, replace=False))
        rows.append([0, *inner.tolist(), TOTAL])
    return rows


def draw(rng, rows, shape):
    """Returns rows and symbols, [S, n] each. A third of the symbols are the last of their row."""
    lookup = range_coder.lookup_of(rows)
    index = rng.integers(0, len(rows), shape) + range_coder.COMMON_ROWS
    counts = np.array([len(row) - 1 for row in rows])[index - range_coder.COMMON_ROWS]
    symbols = (rng.random(shape) * counts).astype(np.int32)
    symbols = np.where(rng.random(shape) < 0.33, counts - 1, symbols)
    return lookup, index.astype(np.int32), symbols.astype(np.int32)


def coded(coder, lookup, chunks):
    """Returns the strings of all chunks of rows and symbols, which are coded in sequence."""
    handle = coder.start_encoder(tf.constant(chunks[0][0].shape[0]), lookup)
    for rows, symbols in chunks:
        handle = coder.encode(handle, tf.constant(rows), tf.constant(symbols))
    return coder.finish(handle).numpy()


@pytest.mark.parametrize("seed", range(60))
def test_bytes_equal_those_of_the_operations_and_each_reads_the_others(operations, seed):
    """Tests lengths from 0 up, in one or several calls, with different ends of the last words."""
    rng = np.random.default_rng(seed)
    length = [0, 1, 2, 3, 5, 8, 13, 40, 200, 3000][seed % 10]
    streams = 1 + seed % 8
    lookup, rows, symbols = draw(rng, rows_of(rng, 4 + seed % 9), (streams, length))
    cuts = np.sort(rng.integers(0, length + 1, seed % 4))
    chunks = list(zip(np.split(rows, cuts, axis=1), np.split(symbols, cuts, axis=1)))
    theirs = coded(operations, lookup, chunks)
    ours = coded(portable, lookup, chunks)
    assert ours.tolist() == theirs.tolist()
    for coder in (portable, operations):
        handle = coder.start_decoder(tf.constant(theirs, tf.string), lookup)
        for chunk_rows, chunk_symbols in chunks:
            handle, found = coder.decode(handle, tf.constant(chunk_rows))
            np.testing.assert_array_equal(found, chunk_symbols)


@pytest.mark.slow
def test_carries_through_many_words_equal_those_of_the_operations(operations):
    """Tests a row's last symbol many times, which keeps the interval at its upper end.

    The words of the output are 0xffff until a carry reaches all of them or the stream ends.
    """
    lookup = range_coder.lookup_of([[0, 1, TOTAL - 1, TOTAL]])
    for seed in range(300):
        rng = np.random.default_rng(seed)
        symbols = rng.choice([0, 1, 2], (1, int(rng.integers(1, 40))), p=[0.05, 0.05, 0.9])
        rows = np.full(symbols.shape, range_coder.COMMON_ROWS, np.int32)
        chunks = [(rows, symbols.astype(np.int32))]
        assert coded(portable, lookup, chunks) == coded(operations, lookup, chunks), seed


@pytest.mark.parametrize("stream", [b"", b"\0" * 9, b"\xff" * 99, bytes(range(256)), b"\x80"])
def test_forged_streams_decode_as_with_the_operations(operations, stream):
    rng = np.random.default_rng(0)
    lookup, rows, _ = draw(rng, rows_of(rng, 12), (2, 500))
    strings = tf.constant([stream, stream[::-1]])
    found = [coder.decode(coder.start_decoder(strings, lookup), rows)[1].numpy()
             for coder in (portable, operations)]  # fmt: skip
    np.testing.assert_array_equal(*found)


def test_coded_bytes_never_change():
    """Tests the digest of the operations' three streams of 1,000 symbols each."""
    rng = np.random.default_rng(7)
    symbols = rng.integers(0, 4, (3, 1000)).astype(np.int32)
    lookup = range_coder.lookup_of([[0, 30000, 50000, 65000, TOTAL]])
    rows = np.full(symbols.shape, range_coder.COMMON_ROWS, np.int32)
    strings = coded(portable, lookup, [(rows, symbols)])
    assert [len(string) for string in strings] == [391, 375, 376]
    assert hashlib.sha256(b"".join(strings)).hexdigest().startswith("bd2b7b8f75244d33")
    _, found = portable.decode(portable.start_decoder(tf.constant(strings), lookup), rows)
    np.testing.assert_array_equal(found, symbols)


@pytest.mark.parametrize("row, symbol", [(0, 1), (0, -1), (-1, 0), (10**6, 0)])
def test_symbols_outside_the_table_are_rejected_eagerly_and_in_a_graph(row, symbol):
    lookup = range_coder.lookup_of([[0, 49152, TOTAL]])

    def code(row, symbol):
        handle = portable.start_encoder(tf.constant(1), lookup)
        return portable.finish(portable.encode(handle, row, symbol))

    arguments = tf.constant([[row]]), tf.constant([[symbol]])
    for run in (code, tf.function(code, autograph=False)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="lies outside"):
            run(*arguments)
    if symbol == 0:
        decoder = portable.start_decoder(tf.constant([b"ab"]), lookup)
        with pytest.raises(tf.errors.InvalidArgumentError, match="lies outside"):
            portable.decode(decoder, arguments[0])


def test_a_graph_codes_in_loops_and_branches():
    """Tests a handle as a loop variable, which a branch may not use, as in serial contexts."""
    table = types.SimpleNamespace(lookup=range_coder.lookup_of([[0, 49152, TOTAL]]))
    symbols = np.random.default_rng(3).integers(0, 2, 700).astype(np.int32)
    row = range_coder.COMMON_ROWS

    def encode(symbols):
        def step(number, handle):
            part = symbols[number * 100 : number * 100 + 100]
            handle = tf.cond(
                number % 2 == 0,
                lambda: range_coder.encode_rows(handle, tf.fill([100], row), part),
                lambda: range_coder.same_handle(handle),
            )
            return number + 1, handle

        start = (0, range_coder.start_encoder(table, 1))
        _, handle = tf.while_loop(lambda number, _: number < 7, step, start)
        return range_coder.finish(handle)

    string = tf.function(encode, autograph=False)(symbols)
    kept = np.concatenate([symbols[i : i + 100] for i in range(0, 700, 200)])
    handle = range_coder.start_decoder(table, string)
    _, found = range_coder.decode_rows(handle, tf.fill([400], row))
    np.testing.assert_array_equal(found, kept)
    assert string.numpy().tolist() == encode(tf.constant(symbols)).numpy().tolist()
