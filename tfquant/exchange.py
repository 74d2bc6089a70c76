"""Exchanges: the transmission of latents between encoder and decoder.

A codec passes its latents in coding order to an exchange, each with the parameters of its entropy
model. In training, the exchange replaces the latents by surrogates. In evaluation, it rounds them.
The encoder's exchange rounds and writes, and the decoder's reads. All four share one walk through
the codec, so evaluation measures the content of a file.

A decoder has no latents: it passes None.

A latent is transmitted as a whole, `exchange(model, latent, *params)`, or in groups of elements.
The parameters of a group may depend on the previous groups:

    groups = Groups(exchange, model)                for a number of groups known beforehand
    received = groups.send(part, *params)           ... for each group in order
    received = groups.close(latent, join)           ... joins the groups to the latent

    state = exchange.open(model)                    inside tf.while_loop: `state` is a loop variable
    state, passed = exchange.send(model, state, group, part, *params)
    received = exchange.close(model, state, latent, passed, params)
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import tensorflow as tf

from tfquant.coding.range_coder import choose_streams, finish, start_decoder, start_encoder
from tfquant.coding.requirement import require
from tfquant.coding.tables import Table
from tfquant.entropy.model import LIKELIHOOD_FLOOR, EntropyModel
from tfquant.ops.random import example_seeds
from tfquant.quantization.plans import QuantizationPlan
from tfquant.quantization.quantizer import dequantize, quantize, symbols
from tfquant.quantization.surrogates import Sample

_FEW_STREAMS = "the file has fewer streams than the model has latents"


class Received(NamedTuple):
    """A transmitted latent, for the synthesis transform and for later latents or groups."""

    distortion: tf.Tensor
    context: tf.Tensor


class Passed(NamedTuple):
    """A transmitted group of a latent's elements: tensors of one shape, nested.

    Attributes:
      received: float32, the transmitted group.
      bits: float32, the cost of each element; None in a decoder, and in training, which computes
        the bits once for the whole latent.
      symbols: int32, the coded integers; None in training, which codes nothing.
      rate: in training, the sample whose bits are counted.
    """

    received: Received
    bits: tf.Tensor | None = None
    symbols: tf.Tensor | None = None
    rate: Sample | None = None


class Exchange:
    """Transmits one latent after the other and keeps the results.

    Attributes:
      replays: true if parameters must be bit-equal to a decoder's. A serial context then computes
        step by step, one picture at a time. Otherwise, it may use one convolution.
      bits: latent's name -> bits of each element, [B, ...] float32.
      latents: latent's name -> the unquantized latent.
      received: latent's name -> the quantized latent, as the synthesis transform or the
        hyper-decoder sees it.
      params: latent's name -> its entropy model's parameters, a tuple.
      symbols: every latent's integers, in coding order; empty in training.
    """

    replays = True

    def __init__(self) -> None:
        self.bits: dict[str, tf.Tensor] = {}
        self.latents: dict[str, tf.Tensor | None] = {}
        self.received: dict[str, tf.Tensor] = {}
        self.params: dict[str, tuple] = {}
        self.symbols: list[tf.Tensor] = []

    def __call__(
        self, model: EntropyModel, latent: tf.Tensor | None, *params: tf.Tensor
    ) -> Received:
        """Transmits a whole latent.

        Args:
          model: the latent's entropy model.
          latent: [B, h, w, C] float, or None in a decoder.
          *params: the parameters of the entropy model.
        """
        state, passed = self.send(model, self.open(model), 0, latent, *params)
        return self.close(model, state, latent, passed, params)

    def open(self, model: EntropyModel) -> Any:
        """Begins a latent. Returns the state for `send`, a (nest of) tensor(s)."""
        del model
        return ()

    def send(
        self,
        model: EntropyModel,
        state: Any,
        group: int,
        latent: tf.Tensor | None,
        *params: tf.Tensor,
    ) -> tuple[Any, Passed]:
        """Transmits a group of elements.

        Args:
          model: the latent's entropy model.
          state: from `open` or the previous `send`.
          group: index of the group; each group has its own noise.
          latent: [B, ..., C] float, the group's elements in any arrangement, or None in a decoder.
          *params: the entropy model's parameters for these elements.

        Returns:
          The next state, and the transmitted group as `Passed`.
        """
        raise NotImplementedError

    def close(
        self,
        model: EntropyModel,
        state: Any,
        latent: tf.Tensor | None,
        passed: Passed,
        params: tuple,
    ) -> Received:
        """Ends a latent. Takes the joined groups and keeps the latent's results."""
        del state
        if model.name in self.received:
            raise ValueError(f"latent {model.name!r} was transmitted before; use distinct names")
        self.latents[model.name] = latent
        self.received[model.name] = passed.received.distortion
        self.params[model.name] = params
        if passed.bits is not None:
            self.bits[model.name] = passed.bits
        if passed.symbols is not None:
            self.symbols.append(passed.symbols)
        return passed.received

    def with_context(
        self, model: EntropyModel, latent: tf.Tensor, params_of: Callable[[tf.Tensor], tuple]
    ) -> Received:
        """Transmits a latent whose parameters depend on itself, with all elements at once.

        Requires that `replays` is false and that the model quantizes around 0: otherwise, the
        offset of an element would depend on the previous elements.

        Args:
          model: the latent's entropy model.
          latent: [B, h, w, C] float.
          params_of: maps the latent as a context sees it, [B, h, w, C], to the parameters (a
            tuple). The parameters of an element may depend only on previous elements.
        """
        raise NotImplementedError

    def bits_per_image(self) -> tf.Tensor:
        """Returns the bits of all latents, [B] float32."""
        return tf.add_n([tf.reduce_sum(b, axis=list(range(1, b.shape.rank)))
                         for b in self.bits.values()])  # fmt: skip


class Groups:
    """Transmits one latent in a number of groups that is known beforehand."""

    def __init__(self, exchange: Exchange, model: EntropyModel):
        self._exchange = exchange
        self._model = model
        self._state = exchange.open(model)
        self._passed: list[Passed] = []
        self._params: list[tuple] = []

    def send(self, latent: tf.Tensor | None, *params: tf.Tensor) -> Received:
        """Transmits the next group; the arguments are those of `Exchange.send`."""
        group = len(self._passed)
        self._state, passed = self._exchange.send(self._model, self._state, group, latent, *params)
        self._passed.append(passed)
        self._params.append(params)
        return passed.received

    def close(self, latent: tf.Tensor | None, join: Callable[[list], tf.Tensor]) -> Received:
        """Ends the latent.

        Args:
          latent: [B, h, w, C] float, or None in a decoder.
          join: joins a list of the groups' tensors, in the order sent, to [B, h, w, C].
        """

        joined = {}  # by identity, which is safe because `_passed` keeps the parts

        def whole_of(*parts: tf.Tensor | None) -> tf.Tensor | None:
            key = tuple(map(id, parts))
            if key not in joined:
                joined[key] = None if parts[0] is None else join(list(parts))
            return joined[key]

        whole = tf.nest.map_structure(whole_of, *self._passed)
        params = self._model.join_params(self._params, join)
        return self._exchange.close(self._model, self._state, latent, whole, params)


class Surrogates(Exchange):
    """Training: transmits the plan's surrogates, with a floor of the likelihood.

    Args:
      plan: the quantization plan.
      alpha: scalar float32 tensor, the temperature.
      seed: the run's seed.
      index: [B] int64, the examples' places in the run.
    """

    replays = False

    def __init__(self, plan: QuantizationPlan, alpha: tf.Tensor, seed: int, index: tf.Tensor):
        super().__init__()
        self._plan = plan
        self._alpha = alpha
        self._seed = seed
        self._index = index

    def _quantized(
        self, model: EntropyModel, group: int, latent: tf.Tensor | None, offset: tf.Tensor
    ) -> Passed:
        plan = self._plan.for_hyper_latent() if model.is_hyper else self._plan
        seeds = example_seeds(self._seed, model.name, self._index, group)
        quantized = quantize(plan, latent, offset, self._alpha, seeds)
        return Passed(Received(quantized.distortion, quantized.context), rate=quantized.rate)

    def send(
        self,
        model: EntropyModel,
        state: Any,
        group: int,
        latent: tf.Tensor | None,
        *params: tf.Tensor,
    ) -> tuple[Any, Passed]:
        return state, self._quantized(model, group, latent, model.offset(*params))

    def close(
        self,
        model: EntropyModel,
        state: Any,
        latent: tf.Tensor | None,
        passed: Passed,
        params: tuple,
    ) -> Received:
        assert passed.rate is not None  # `send` sets it
        # Once for all groups, because a likelihood takes about a hundred operations to trace.
        bits = model.bits(passed.rate, *params, floor=LIKELIHOOD_FLOOR)
        passed = passed._replace(bits=bits)
        return super().close(model, state, latent, passed, params)

    def with_context(
        self, model: EntropyModel, latent: tf.Tensor, params_of: Callable[[tf.Tensor], tuple]
    ) -> Received:
        passed = self._quantized(model, 0, latent, tf.zeros([]))
        return self.close(model, (), latent, passed, params_of(passed.received.context))


class Rounding(Exchange):
    """Evaluation: the decoder's latents and the cost of a file, without making the file.

    For any sigma, an element can escape at a bounded cost. With `tables`, this cost is exact: 17 to
    34 bits for most symbols. Without, as in training, it is that of `LIKELIHOOD_FLOOR`, 29.9 bits,
    as in `Surrogates`. The costs of surrogates and of rounding then differ only by the surrogates.
    A serial context may compute all elements at once.

    Args:
      tables: latent's name -> its coding table.
    """

    def __init__(self, tables: dict[str, Table] | None = None):
        super().__init__()
        self._tables = {} if tables is None else tables
        self.replays = tables is not None

    def _rounded(
        self, model: EntropyModel, integers: tf.Tensor, offset: tf.Tensor, params: tuple
    ) -> tuple[Passed, tuple]:
        """Returns integers as a transmitted group, and their coding parameters with `tables`."""
        y_hat = dequantize(integers, offset)
        floor = None if self.replays else LIKELIHOOD_FLOOR
        bits = model.bits(Sample(y_hat), *params, floor=floor)
        if not self.replays:
            return Passed(Received(y_hat, y_hat), bits, integers), ()
        where = model.coding_params(tf.shape(integers), *params)
        bits = self._tables[model.name].price(bits, integers, *where)
        return Passed(Received(y_hat, y_hat), bits, integers), where

    def _round(
        self, model: EntropyModel, latent: tf.Tensor | None, params: tuple
    ) -> tuple[Passed, tuple]:
        offset = model.offset(*params)
        return self._rounded(model, symbols(latent, offset), offset, params)

    def send(
        self,
        model: EntropyModel,
        state: Any,
        group: int,
        latent: tf.Tensor | None,
        *params: tf.Tensor,
    ) -> tuple[Any, Passed]:
        del group
        passed, _ = self._round(model, latent, params)
        return state, passed

    def with_context(
        self, model: EntropyModel, latent: tf.Tensor, params_of: Callable[[tf.Tensor], tuple]
    ) -> Received:
        integers = symbols(latent, tf.zeros([]))
        params = params_of(tf.cast(integers, tf.float32))
        passed, _ = self._rounded(model, integers, tf.zeros([]), params)
        return self.close(model, (), latent, passed, params)


class Writing(Rounding):
    """Encoding: rounds, and range codes the rounded integers.

    Args:
      tables: latent's name -> its coding table.
    """

    def __init__(self, tables: dict[str, Table]):
        super().__init__(tables)
        self._streams: list[tf.Tensor] = []

    def __call__(
        self, model: EntropyModel, latent: tf.Tensor | None, *params: tf.Tensor
    ) -> Received:
        passed, where = self._round(model, latent, params)
        # Every latent except the last has one stream, so the number of streams identifies their
        # latents.
        last = len(self.symbols) + 1 == len(self._tables)
        streams = choose_streams(tf.reduce_sum(passed.bits)) if last else 1
        table = self._tables[model.name]
        state = table.encode(start_encoder(table, streams), passed.symbols, *where)
        return self.close(model, state, latent, passed, params)

    def open(self, model: EntropyModel) -> Any:
        return start_encoder(self._tables[model.name], 1)

    def send(
        self,
        model: EntropyModel,
        state: Any,
        group: int,
        latent: tf.Tensor | None,
        *params: tf.Tensor,
    ) -> tuple[Any, Passed]:
        del group
        passed, where = self._round(model, latent, params)
        return self._tables[model.name].encode(state, passed.symbols, *where), passed

    def close(
        self,
        model: EntropyModel,
        state: Any,
        latent: tf.Tensor | None,
        passed: Passed,
        params: tuple,
    ) -> Received:
        self._streams.append(finish(state))
        return super().close(model, state, latent, passed, params)

    def streams(self) -> tf.Tensor:
        """Returns the coded latents, [S] string."""
        return tf.concat(self._streams, axis=0)


class Reading(Exchange):
    """Decoding: reads the streams of `Writing`.

    Args:
      tables: latent's name -> its coding table.
      streams: [S] string.
      shapes: latent's name -> int32 [4].
    """

    def __init__(self, tables: dict[str, Table], streams: tf.Tensor, shapes: dict[str, tf.Tensor]):
        super().__init__()
        self._tables = tables
        self._streams = streams
        self._shapes = shapes

    def __call__(
        self, model: EntropyModel, latent: tf.Tensor | None, *params: tf.Tensor
    ) -> Received:
        state = start_decoder(self._tables[model.name], self._strings())
        state, passed = self.send(model, state, 0, latent, *params)
        return self.close(model, state, latent, passed, params)

    def open(self, model: EntropyModel) -> Any:
        # Groups have one stream. A forged file may have several.
        stream = tf.strings.reduce_join(self._strings())
        return start_decoder(self._tables[model.name], stream[None])

    def _strings(self) -> tf.Tensor:
        """Returns the streams of the next latent."""
        position = len(self.symbols)
        last = position == len(self._tables) - 1
        streams = self._streams[position:] if last else self._streams[position : position + 1]
        with tf.control_dependencies([require(tf.size(streams) > 0, _FEW_STREAMS)]):
            return tf.identity(streams)

    def send(
        self,
        model: EntropyModel,
        state: Any,
        group: int,
        latent: tf.Tensor | None,
        *params: tf.Tensor,
    ) -> tuple[Any, Passed]:
        del group, latent
        where = model.coding_params(self._shapes[model.name], *params)
        state, integers = self._tables[model.name].decode(state, *where)
        y_hat = dequantize(integers, model.offset(*params))
        return state, Passed(Received(y_hat, y_hat), symbols=integers)
