"""Tests streams: their number, their padding, and the safety of corrupt ones."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
import tensorflow as tf

from tfquant.coding import pmf, range_coder

# A row of two symbols, 3 : 1, after the common rows.
TABLE = types.SimpleNamespace(lookup=range_coder.lookup_of([[0, 49152, 65536]]))
ROW = range_coder.COMMON_ROWS


def _encode(symbols, streams):
    symbols = tf.constant(symbols, tf.int32)
    handle = range_coder.start_encoder(TABLE, streams)
    handle = range_coder.encode_rows(handle, tf.fill(tf.shape(symbols), ROW), symbols)
    return range_coder.finish(handle)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
@pytest.mark.parametrize("streams", [1, 3, 8])
def test_any_number_of_symbols_round_trips_through_any_number_of_streams(count, streams):
    symbols = np.random.default_rng(count).integers(0, 2, count)
    strings = _encode(symbols, streams)
    assert strings.shape == [streams]
    _, decoded = range_coder.decode_rows(
        range_coder.start_decoder(TABLE, strings), tf.fill([count], ROW)
    )
    np.testing.assert_array_equal(decoded, symbols)


def test_padding_streams_costs_no_bits():
    symbols = np.ones(9, np.int32)
    split = _encode(symbols, 8).numpy()  # parts of two symbols; the last three are all filling
    assert split[5:].tolist() == [b"", b"", b""]


def test_symbols_are_distributed_to_streams_by_the_documented_rule():
    for bits, streams in [(0, 1), (79_999, 1), (80_000, 2), (240_001, 4), (1e9, 8)]:
        assert int(range_coder.choose_streams(tf.constant(bits, tf.float32))) == streams


def test_more_streams_cost_less_than_a_twentieth_of_a_percent():
    symbols = (np.random.default_rng(0).random(300_000) < 0.25).astype(np.int32)
    one = sum(map(len, _encode(symbols, 1).numpy()))
    streams = int(range_coder.choose_streams(tf.constant(8.0 * one)))
    several = sum(map(len, _encode(symbols, streams).numpy())) + 4 * (streams - 1)
    assert streams > 1 and several - one < 0.0005 * one


def test_escapes_survive_up_to_the_limit():
    excess = np.array([0, 1, 2, 3, 254, 255, 256, 65535, 65536, pmf.MAX_EXCESS - 1], np.int32)
    side = np.arange(excess.size) % 2
    rows = np.arange(excess.size, dtype=np.int32) * 5
    handle = range_coder.encode_escapes(
        range_coder.start_encoder(TABLE, 2),
        tf.constant(excess),
        tf.constant(side, tf.int32),
        tf.constant(rows),
    )
    handle = range_coder.start_decoder(TABLE, range_coder.finish(handle))
    _, decoded, decoded_side = range_coder.decode_escapes(handle, tf.constant(rows))
    np.testing.assert_array_equal(decoded, excess)
    np.testing.assert_array_equal(decoded_side, side)


def test_escape_beyond_the_limit_is_an_error_not_an_endless_stream():
    for excess in (pmf.MAX_EXCESS, -1, -(2**31)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
            range_coder.encode_escapes(
                range_coder.start_encoder(TABLE, 1), tf.constant([excess]), tf.zeros([1], tf.int32),
                tf.constant([0]),
            )  # fmt: skip


@pytest.mark.parametrize("stream", [b"", b"\0" * 9, b"\xff" * 99, bytes(range(256))])
def test_decoding_a_forged_stream_ends(stream):
    handle = range_coder.start_decoder(TABLE, tf.constant([stream]))
    handle, symbols = range_coder.decode_rows(handle, tf.fill([1000], ROW))
    _, excess, _ = range_coder.decode_escapes(handle, tf.fill([1000], 0))
    assert symbols.shape == [1000] and int(tf.reduce_max(excess)) < pmf.MAX_EXCESS + 1


@pytest.mark.parametrize(
    "rows, bad",
    [
        ([[0, 5, 5, pmf.TOTAL]], [0, 5, 5, pmf.TOTAL]),
        ([[]], []),
        ([[0]], [0]),
        ([[], [0, pmf.TOTAL]], []),
        ([[0, pmf.TOTAL], []], []),
    ],
)
def test_lookup_rejects_rows_that_do_not_rise_from_0_to_the_total(rows, bad):
    message = f"a row of a table must rise strictly from 0 to 65536, got {np.array(bad)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        range_coder.lookup_of(rows)
