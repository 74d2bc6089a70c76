"""What happens to a latent between encoder and decoder.

A codec walks its latents in coding order and hands each, with its entropy model's parameters, to an
exchange: training puts surrogates in their place, evaluation rounds, the encoder rounds and writes,
the decoder reads. One walk serves all four, so what evaluation measures is what a file holds.

A latent goes whole, `exchange(model, latent, *params)`, or in groups of elements, each with
parameters that may depend on the groups before it:

    groups = Groups(exchange, model)                for a number of groups known beforehand
    received = groups.send(part, *params)           ... each in turn
    received = groups.close(latent, join)           ... the latent put together again

    state = exchange.open(model)                    inside tf.while_loop: `state` is a loop variable
    state, passed = exchange.send(model, state, group, part, *params)
    received = exchange.close(model, state, latent, passed, params)
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import tensorflow as tf

from tfquant.coding.range_coder import choose_streams, finish, start_decoder, start_encoder
from tfquant.entropy.model import LIKELIHOOD_FLOOR, EntropyModel
from tfquant.ops.random import example_seeds
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.quantizer import Quantizer, dequantize, symbols
from tfquant.quantization.surrogates import Sample


class Received(NamedTuple):
    """A latent as it comes back: for the synthesis transform and for whatever is coded later."""

    distortion: tf.Tensor
    context: tf.Tensor


class Passed(NamedTuple):
    """A group of a latent's elements that went through an exchange: tensors of one shape, nested.

    Attributes:
      received: float32, the group as it comes back.
      bits: float32, what each element costs; None for a decoder, which pays nothing, and in
        training, which asks once for the whole latent.
      symbols: int32, what is coded; None in training, which codes nothing.
      rate: in training, the sample that the latent's bits are of.
    """

    received: Received
    bits: tf.Tensor | None = None
    symbols: tf.Tensor | None = None
    rate: Sample | None = None


class Exchange:
    """Takes one latent after the other; keeps what passed.

    Attributes:
      has_latents: whether the caller has the latents, which a decoder has not.
      replays: whether parameters must come out bit-equal to a decoder's, so that a serial context
        goes step by step, one picture at a time; otherwise it may use one convolution.
      bits: latent's name -> bits of each element, [B, ...] float32.
      latents: latent's name -> the unquantized latent.
      received: latent's name -> the quantized latent that the synthesis or hyper-decoder sees.
      params: latent's name -> its entropy model's parameters, a tuple.
      symbols: every latent's integers, in coding order; empty in training.
    """

    has_latents = True
    replays = True

    def __init__(self):
        self.bits = {}
        self.latents = {}
        self.received = {}
        self.params = {}
        self.symbols = []

    def __call__(self, model: EntropyModel, latent, *params) -> Received:
        """Passes a whole latent on.

        Args:
          model: the latent's entropy model.
          latent: [B, h, w, C] float, or None where `has_latents` is False.
          *params: the entropy model's parameters for it.
        """
        state, passed = self.send(model, self.open(model), 0, latent, *params)
        return self.close(model, state, latent, passed, params)

    def open(self, model: EntropyModel):
        """Begins a latent: the state that `send` takes and gives back, a (nest of) tensor(s)."""
        del model
        return ()

    def send(self, model: EntropyModel, state, group: int, latent, *params):
        """Passes a group of elements on.

        Args:
          model: the latent's entropy model.
          state: from `open` or the `send` before.
          group: the group's number, which tells its noise from the other groups'.
          latent: [B, ..., C] float, the group's elements in any arrangement, or None.
          *params: the entropy model's parameters for them.

        Returns:
          state, and the group as it `Passed`.
        """
        raise NotImplementedError

    def close(self, model: EntropyModel, state, latent, passed: Passed, params) -> Received:
        """Ends a latent: takes it whole, its groups put together again, and keeps it."""
        del state
        if model.name in self.received:
            raise ValueError(f"latent {model.name!r} was passed on before; give each its own name")
        self.latents[model.name] = latent
        self.received[model.name] = passed.received.distortion
        self.params[model.name] = params
        if passed.bits is not None:
            self.bits[model.name] = passed.bits
        if passed.symbols is not None:
            self.symbols.append(passed.symbols)
        return passed.received

    def with_context(self, model: EntropyModel, latent, params_of: Callable) -> Received:
        """Passes on a latent whose parameters depend on itself, all elements at once.

        Only where `replays` is False, and for a model that quantizes around 0: otherwise the
        offset of an element would have to wait for the elements before it.

        Args:
          model: the latent's entropy model.
          latent: [B, h, w, C] float.
          params_of: maps the latent as a context sees it, [B, h, w, C], to the parameters (a
            tuple), those of an element from elements before it alone.
        """
        raise NotImplementedError

    def bits_per_image(self) -> tf.Tensor:
        """[B] float32: all latents' bits."""
        return tf.add_n([tf.reduce_sum(b, axis=list(range(1, b.shape.rank)))
                         for b in self.bits.values()])  # fmt: skip


class Groups:
    """One latent's way through an exchange in a number of groups that is known beforehand."""

    def __init__(self, exchange: Exchange, model: EntropyModel):
        self._exchange = exchange
        self._model = model
        self._state = exchange.open(model)
        self._passed = []
        self._params = []

    def send(self, latent, *params) -> Received:
        """Passes the next group on; arguments as in `Exchange.send`."""
        group = len(self._passed)
        self._state, passed = self._exchange.send(self._model, self._state, group, latent, *params)
        self._passed.append(passed)
        self._params.append(params)
        return passed.received

    def close(self, latent, join: Callable) -> Received:
        """Ends the latent.

        Args:
          latent: [B, h, w, C] float, or None.
          join: puts a list of the groups' tensors, in the order sent, together: [B, h, w, C].
        """

        joined = {}  # by identity, which is safe as long as `_passed` keeps the parts: once each

        def whole_of(*parts):
            key = tuple(map(id, parts))
            if key not in joined:
                joined[key] = None if parts[0] is None else join(list(parts))
            return joined[key]

        whole = tf.nest.map_structure(whole_of, *self._passed)
        params = self._model.join_params(self._params, join)
        return self._exchange.close(self._model, self._state, latent, whole, params)


class Surrogates(Exchange):
    """Training: the plan's surrogates, and a floor of the likelihood.

    Args:
      plan: the quantization plan.
      alpha: scalar float32 tensor, the temperature.
      seed: the run's seed.
      index: [B] int64, the examples' places in the run.
    """

    replays = False

    def __init__(self, plan: QuantizationPlan, alpha, seed: int, index: tf.Tensor):
        super().__init__()
        self._plan = plan
        self._alpha = alpha
        self._seed = seed
        self._index = index

    def _quantized(self, model, group, latent, offset) -> Passed:
        plan = self._plan.for_hyper_latent() if model.is_hyper else self._plan
        seeds = example_seeds(self._seed, model.name, self._index, group)
        quantizer = Quantizer(plan, name=f"quantizer_{model.name}")
        quantized = quantizer(latent, offset, self._alpha, seeds)
        return Passed(Received(quantized.distortion, quantized.context), rate=quantized.rate)

    def send(self, model, state, group, latent, *params):
        return state, self._quantized(model, group, latent, model.offset(*params))

    def close(self, model, state, latent, passed, params):
        # Once, not for every group: a likelihood is some hundred operations to trace.
        bits = model.bits(passed.rate, *params, floor=LIKELIHOOD_FLOOR)
        passed = passed._replace(bits=bits)
        return super().close(model, state, latent, passed, params)

    def with_context(self, model, latent, params_of):
        passed = self._quantized(model, 0, latent, tf.zeros([]))
        return self.close(model, (), latent, passed, params_of(passed.received.context))


# Without tables at hand: about what an escape takes.
_ESCAPE_BITS = 24.0


class Rounding(Exchange):
    """Evaluation: the decoder's latents and the price of a file, without the file.

    However small an element's sigma, it can escape at a bounded price. With `tables` that price is
    exact; without, as while training, it is one number for all, and a serial context may be
    computed at once.

    Args:
      tables: latent's name -> its coding table.
    """

    def __init__(self, tables: dict | None = None):
        super().__init__()
        self._tables = tables
        self.replays = tables is not None

    def _rounded(self, model, integers, offset, params) -> Passed:
        y_hat = dequantize(integers, offset)
        bits = model.bits(Sample(y_hat), *params)
        if self._tables is None:
            bits = tf.minimum(bits, _ESCAPE_BITS)
        else:
            bits = model.price(self._tables[model.name], bits, integers, *params)
        return Passed(Received(y_hat, y_hat), bits, integers)

    def send(self, model, state, group, latent, *params):
        del group
        offset = model.offset(*params)
        return state, self._rounded(model, symbols(latent, offset), offset, params)

    def with_context(self, model, latent, params_of):
        integers = symbols(latent, tf.zeros([]))
        params = params_of(tf.cast(integers, tf.float32))
        passed = self._rounded(model, integers, tf.zeros([]), params)
        return self.close(model, (), latent, passed, params)


class Writing(Rounding):
    """Encoding: rounding, and range coding what was rounded.

    Args:
      tables: latent's name -> its coding table.
    """

    def __init__(self, tables: dict):
        super().__init__(tables)
        self._streams = []

    def __call__(self, model, latent, *params):
        _, passed = super().send(model, (), 0, latent, *params)
        # Every latent but the last has one stream, so that their number tells whose is whose.
        last = len(self.symbols) + 1 == len(self._tables)
        streams = choose_streams(tf.reduce_sum(passed.bits)) if last else 1
        table = self._tables[model.name]
        state = model.write(table, start_encoder(table, streams), passed.symbols, *params)
        return self.close(model, state, latent, passed, params)

    def open(self, model):
        return start_encoder(self._tables[model.name], 1)

    def send(self, model, state, group, latent, *params):
        _, passed = super().send(model, (), group, latent, *params)
        return model.write(self._tables[model.name], state, passed.symbols, *params), passed

    def close(self, model, state, latent, passed, params):
        self._streams.append(finish(state))
        return super().close(model, state, latent, passed, params)

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

    def __call__(self, model, latent, *params):
        state = start_decoder(self._tables[model.name], self._strings())
        state, passed = self.send(model, state, 0, latent, *params)
        return self.close(model, state, latent, passed, params)

    def open(self, model):
        # Groups have one stream; of a forged file it may be none or several.
        stream = tf.strings.reduce_join(self._strings())
        return start_decoder(self._tables[model.name], stream[None])

    def _strings(self):
        """The streams of the next latent."""
        position = len(self.symbols)
        last = position == len(self._tables) - 1
        return self._streams[position:] if last else self._streams[position : position + 1]

    def send(self, model, state, group, latent, *params):
        del group, latent
        table, shape = self._tables[model.name], self._shapes[model.name]
        state, integers = model.read(table, state, shape, *params)
        y_hat = dequantize(integers, model.offset(*params))
        return state, Passed(Received(y_hat, y_hat), symbols=integers)
