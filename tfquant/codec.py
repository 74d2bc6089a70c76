"""Base class of all codecs: picture -> latents -> picture, with an exchange in between.

    x --pad-- g_a --> y ==transmit== y_hat --[rectifier]--> y_bar --> g_s --crop-- x_hat

A codec in `models/` provides the networks and `transmit`, which transmits the latents in coding
order. This module contains what all codecs share: padding, cropping, shapes, the optional rectifier
and gains, and the groups of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfquant.entropy.model import EntropyModel
from tfquant.exchange import Exchange, Rounding
from tfquant.layers.gain import Gain
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH, QuantizationRectifier
from tfquant.legacy_keras import keras
from tfquant.names import check_known

# Purposes of a codec's networks. A stage freezes them by these names. The fingerprint of a file
# covers `entropy`, on which the meaning of its bits depends.
GROUPS = ("encoder", "entropy", "decoder")


class Codec(keras.Model):
    """A learned image codec.

    A subclass sets `g_a`, `g_s` and `entropy_models` (in coding order), and implements `transmit`.
    Its networks are attributes with the names in the papers. Networks that belong neither to the
    encoder's nor to the decoder's parts belong to the entropy model.

    Attributes:
      downsampling: pictures are padded to multiples of this number of pixels on both sides.
      encoder_parts: names of the networks that a decoder does not need.
      decoder_parts: names of the networks that an encoder does not need.
      entropy_models: the latents' entropy models, in coding order.
      rectifier: the Quantization Rectifier, or None; see `add_rectifier`.
      gain: the gain of a codec for a range of rates, or None; see `add_gains`.
      inverse_gain: its inverse gain, or None.
    """

    downsampling = 64
    encoder_parts: tuple[str, ...] = ("g_a", "h_a")
    decoder_parts: tuple[str, ...] = ("g_s",)
    entropy_models: tuple[EntropyModel, ...] = ()

    def __init__(self, **options: Any):
        super().__init__(**options)
        # Keras does not track an attribute that the class defines as well.
        self.rectifier: QuantizationRectifier | None = None
        self.gain: Gain | None = None
        self.inverse_gain: Gain | None = None

    def add_rectifier(self, width: int = LIGHT_WIDTH, depth: int = LIGHT_DEPTH) -> None:
        """Inserts a Quantization Rectifier between quantizer and `g_s`. It starts as the identity.

        The bits are the same with and without rectifier. A file decodes with either decoder, as
        long as neither the encoder nor the entropy model is trained further.

        Args:
          width: hidden channels of the rectifier.
          depth: its number of residual blocks.
        """
        before = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy(self.g_s.dtype_policy)
        try:
            self.rectifier = QuantizationRectifier(width, depth, name="rectifier")
            _, channels = self.latent_channels()["y"]
            self.rectifier(tf.zeros([1, 1, 1, channels]))
        finally:
            keras.mixed_precision.set_global_policy(before)

    def add_gains(self, factors: Sequence[float]) -> None:
        """Makes a codec for a range of rates, which takes a quality from 0 to 1.

        The latent is multiplied by a gain before quantization, and by an inverse gain before `g_s`.
        Both are trained. A rectifier is in between: it predicts the scaled latent.

        Args:
          factors: the initial gain of each level, from quality 0 to quality 1. The inverse gain
            starts with their reciprocals.
        """
        _, channels = self.latent_channels()["y"]
        self.gain = Gain(factors, name="gain")
        self.inverse_gain = Gain([1.0 / factor for factor in factors], name="inverse_gain")
        for part in (self.gain, self.inverse_gain):
            part(tf.zeros([1, 1, 1, channels]), tf.zeros([1]))

    def transmit(self, y: tf.Tensor | None, exchange: Exchange) -> tf.Tensor:
        """Transmits all latents in coding order.

        Args:
          y: [B, h, w, M] float, or None if the exchange has no latents (decoding).
          exchange: transmits each latent and returns it quantized.

        Returns:
          y_hat, [B, h, w, M] float32: y as the decoder receives it.
        """
        raise NotImplementedError

    def latent_channels(self) -> dict[str, tuple[int, int]]:
        """Returns latent's name -> (downsampling factor relative to the picture, channels)."""
        raise NotImplementedError

    def call(
        self, x: tf.Tensor, exchange: Exchange | None = None, quality: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Maps pictures to their reconstructions.

        Args:
          x: [B, H, W, 3] float32 in [0, 1].
          exchange: transmits the latents; None rounds them, as a decoder receives them.
          quality: [B] float32 from 0 to 1, for a codec with gains; None for any other codec.

        Returns:
          x_hat: [B, H, W, 3] float32, not clipped.
        """
        exchange = Rounding() if exchange is None else exchange
        y_bar = self.rectify(self.transmit(self.analyze(x, quality), exchange))
        return self.synthesize(y_bar, tf.shape(x)[1], tf.shape(x)[2], quality)

    def analyze(self, x: tf.Tensor, quality: tf.Tensor | None = None) -> tf.Tensor:
        """Maps `x: [B, H, W, 3]` float32 in [0, 1] to y: [B, h, w, M] float32; `quality` as in
        `call`.
        """
        y = tf.cast(self.g_a(pad_to_multiple(x, self.downsampling)), tf.float32)
        return self.scale(y, quality)

    def scale(self, y: tf.Tensor, quality: tf.Tensor | None) -> tf.Tensor:
        """Multiplies the output of `g_a`, [B, h, w, M] float32, by the gain; `quality` as in
        `call`.
        """
        return self._scaled(y, self.gain, quality)

    def rectify(self, y_hat: tf.Tensor) -> tf.Tensor:
        """Maps `y_hat` to `y_bar`, the input of `synthesize`: [B, h, w, M] float32 both.

        Without a rectifier, `y_bar` is `y_hat`.
        """
        return y_hat if self.rectifier is None else self.rectifier(y_hat)

    def synthesize(
        self,
        y_bar: tf.Tensor,
        height: tf.Tensor | int,
        width: tf.Tensor | int,
        quality: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Maps `y_bar` to x_hat: [B, height, width, 3] float32, not clipped; `quality` as in
        `call`.
        """
        y_bar = self.scale_back(y_bar, quality)
        return tf.cast(self.g_s(y_bar), tf.float32)[:, :height, :width]

    def scale_back(self, y_bar: tf.Tensor, quality: tf.Tensor | None) -> tf.Tensor:
        """Multiplies `y_bar`, [B, h, w, M] float32, by the inverse gain: the input of `g_s`;
        `quality` as in `call`.
        """
        return self._scaled(y_bar, self.inverse_gain, quality)

    def _scaled(self, y: tf.Tensor, gain: Gain | None, quality: tf.Tensor | None) -> tf.Tensor:
        if (gain is None) != (quality is None):
            state = "no gains: it takes no quality" if gain is None else "gains: it needs a quality"
            raise ValueError(f"the codec {self.name} has {state}")
        return y if gain is None else gain(y, quality)

    def latent_shapes(
        self, height: tf.Tensor | int, width: tf.Tensor | int
    ) -> dict[str, tf.Tensor]:
        """Returns latent's name -> shape, int32 [4], for one picture of that size in pixels."""
        shapes = {}
        for name, (down, channels) in self.latent_channels().items():
            rows, columns = (
                -(-side // self.downsampling) * (self.downsampling // down)
                for side in (height, width)
            )
            shapes[name] = tf.stack([1, rows, columns, channels])
        return shapes

    def parts(self) -> dict[str, keras.layers.Layer]:
        """Returns name -> Keras layer: the networks, such as g_a and h_s, and the entropy
        models.
        """
        return {n: v for n, v in vars(self).items() if isinstance(v, keras.layers.Layer)}

    def group(self, name: str) -> dict[str, keras.layers.Layer]:
        """Returns the parts in a group of `GROUPS`. A ValueError lists the known groups."""
        check_known("group of parts", name, GROUPS)
        members = {
            "encoder": (*self.encoder_parts, "gain"),
            "decoder": (*self.decoder_parts, "inverse_gain", "rectifier"),
        }
        if name == "entropy":
            others = sum(members.values(), ())
            return {n: part for n, part in self.parts().items() if n not in others}
        return {n: part for n, part in self.parts().items() if n in members[name]}


def pad_to_multiple(x: tf.Tensor, multiple: int) -> tf.Tensor:
    """Repeats the last row and column of `[B, H, W, C]` until both sides are multiples of
    `multiple`.

    Edge padding works for any size from 1x1. Reflection would need a picture larger than the
    padding.
    """
    for axis in (1, 2):
        side = x.shape[axis]
        if side is not None and side % multiple == 0:
            continue
        side = tf.shape(x)[axis]
        padded = -(-side // multiple) * multiple
        x = tf.gather(x, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return x
