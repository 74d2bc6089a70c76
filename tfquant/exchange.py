"""What happens to a latent between encoder and decoder.

A codec walks its latents in coding order and hands each, with its entropy model's parameters, to an
exchange: training puts surrogates in their place, evaluation rounds, the encoder rounds and writes,
the decoder reads. One walk serves all four, so what evaluation measures is what a file holds.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfquant.coding.range_coder import choose_streams, finish, start_decoder, start_encoder
from tfquant.entropy.model import EntropyModel
from tfquant.ops.random import example_seeds
from tfquant.plans import QuantizationPlan
from tfquant.quantizer import Quantizer, dequantize, symbols
from tfquant.surrogates import Sample


class Received(NamedTuple):
    """A latent as it comes back: for the synthesis transform and for whatever is coded later."""

    distortion: tf.Tensor
    context: tf.Tensor


class Exchange:
    """Takes one latent after the other; keeps what passed.

    Attributes:
      has_latents: whether the caller has the latents, which a decoder has not.
      bits: latent's name -> bits of each element, [B, ...] float32.
      latents: latent's name -> the unquantized latent.
      received: latent's name -> the quantized latent that the synthesis or hyper-decoder sees.
    """

    has_latents = True

    def __init__(self):
        self.bits = {}
        self.latents = {}
        self.received = {}
        self.params = {}

    def __call__(self, model: EntropyModel, latent, *params) -> Received:
        """Passes `latent` on.

        Args:
          model: the latent's entropy model.
          latent: [B, h, w, C] float, or None where `has_latents` is False.
          *params: the entropy model's parameters for it.
        """
        if model.name in self.received:
            raise ValueError(f"latent {model.name!r} was passed on before; give each its own name")
        received = self._pass_on(model, latent, params)
        self.latents[model.name] = latent
        self.received[model.name] = received.distortion
        self.params[model.name] = params
        return received

    def _pass_on(self, model, latent, params) -> Received:
        raise NotImplementedError

    def bits_per_image(self) -> tf.Tensor:
        """[B] float32: all latents' bits."""
        return tf.add_n([tf.reduce_sum(b, axis=list(range(1, b.shape.rank)))
                         for b in self.bits.values()])  # fmt: skip


class Surrogates(Exchange):
    """Training: the plan's surrogates.

    Args:
      plan: the quantization plan.
      alpha: scalar float32 tensor, the temperature.
      seed: the run's seed.
      index: [B] int64, the examples' places in the run.
    """

    def __init__(self, plan: QuantizationPlan, alpha, seed: int, index: tf.Tensor):
        super().__init__()
        self._plan = plan
        self._alpha = alpha
        self._seed = seed
        self._index = index

    def _pass_on(self, model, latent, params):
        plan = self._plan if model.name == "y" else self._plan.for_hyper_latent()
        offset = model.offset(*params)
        seeds = example_seeds(self._seed, model.name, self._index)
        quantized = Quantizer(plan, name=f"quantizer_{model.name}")(
            latent, offset, self._alpha, seeds
        )
        self.bits[model.name] = model.bits(quantized.rate, *params)
        return Received(quantized.distortion, quantized.context)


# Without tables at hand: about what an escape code takes (`tfquant/coding/pmf.py`).
_ESCAPE_BITS = 24.0


class Rounding(Exchange):
    """Evaluation: the decoder's latents and the price of a file, without the file.

    However small an element's sigma, an escape code bounds what it costs. With `tables` that bound
    is exact; without, as while training, it is one number for all.

    Args:
      tables: latent's name -> its coding table.

    Attributes:
      symbols: every latent's integers, in coding order.
    """

    def __init__(self, tables: dict | None = None):
        super().__init__()
        self._tables = tables
        self.symbols = []

    def _pass_on(self, model, latent, params):
        offset = model.offset(*params)
        integers = symbols(latent, offset)
        y_hat = dequantize(integers, offset)
        bound = _ESCAPE_BITS
        if self._tables is not None:
            bound = model.escape_bits(self._tables[model.name], integers, *params)
        self.bits[model.name] = tf.minimum(model.bits(Sample(y_hat), *params), bound)
        self.symbols.append(integers)
        return Received(y_hat, y_hat)


class Writing(Rounding):
    """Encoding: rounding, and range coding what was rounded.

    Args:
      tables: latent's name -> its coding table.
    """

    def __init__(self, tables: dict):
        super().__init__(tables)
        self._streams = []

    def _pass_on(self, model, latent, params):
        received = super()._pass_on(model, latent, params)
        table, integers = self._tables[model.name], self.symbols[-1]
        # Every latent but the last has one stream, so that their number tells whose is whose.
        last = len(self.symbols) == len(self._tables)
        streams = choose_streams(tf.reduce_sum(self.bits[model.name])) if last else 1
        handle = start_encoder(table, streams)
        self._streams.append(finish(model.write(table, handle, integers, *params)))
        return received

    def streams(self) -> tf.Tensor:
        """[S] string: the coded latents."""
        return tf.concat(self._streams, axis=0)


class Reading(Exchange):
    """Decoding: reads what `Writing` wrote.

    Args:
      tables: latent's name -> its coding table.
      streams: [S] string.
      shapes: latent's name -> int32 [4].
    """

    has_latents = False

    def __init__(self, tables: dict, streams: tf.Tensor, shapes: dict):
        super().__init__()
        self._tables = tables
        self._streams = streams
        self._shapes = shapes
        self.symbols = []

    def _pass_on(self, model, latent, params):
        table, position = self._tables[model.name], len(self.symbols)
        last = position == len(self._tables) - 1
        strings = self._streams[position:] if last else self._streams[position : position + 1]
        handle = start_decoder(table, strings)
        _, integers = model.read(table, handle, self._shapes[model.name], *params)
        y_hat = dequantize(integers, model.offset(*params))
        self.symbols.append(integers)
        return Received(y_hat, y_hat)
