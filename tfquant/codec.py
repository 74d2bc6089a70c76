"""The base class of every codec: picture -> latents -> picture, with an exchange in the middle.

    x --pad-- g_a --> y ==transmit== y_hat --[rectifier]--> y_bar --> g_s --crop-- x_hat

A codec in `models/` provides the networks and `transmit`, which passes the latents on in coding
order. This module holds what all codecs share: padding, cropping, shapes, the optional rectifier,
and the groups of networks.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant.exchange import Exchange, Rounding
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH, QuantizationRectifier
from tfquant.legacy_keras import keras

# What the networks of a codec are for: a stage freezes them by these names, and `entropy` is what
# gives a file's bits their meaning, so what its fingerprint covers.
GROUPS = ("encoder", "entropy", "decoder")


class Codec(keras.Model):
    """A learned image codec.

    A subclass sets `g_a`, `g_s` and `entropy_models` (in coding order), and writes `transmit`. Its
    networks are attributes with the papers' names; those that are neither of the encoder's nor of
    the decoder's parts belong to the entropy model.

    Attributes:
      downsampling: pictures are padded to a multiple of it on both sides.
      encoder_parts: names of the networks that a decoder does not need.
      decoder_parts: names of the networks that an encoder does not need.
      entropy_models: the latents' entropy models, in coding order.
      rectifier: the Quantization Rectifier, or None; see `add_rectifier`.
    """

    downsampling = 64
    encoder_parts: tuple = ("g_a", "h_a")
    decoder_parts: tuple = ("g_s",)
    entropy_models: tuple = ()

    def __init__(self, **options):
        super().__init__(**options)
        # Keras does not track an attribute that the class has as well.
        self.rectifier = None

    def add_rectifier(self, width: int = LIGHT_WIDTH, depth: int = LIGHT_DEPTH) -> None:
        """Puts a Quantization Rectifier between quantizer and `g_s`. At first it is the identity.

        The bits are the same with and without rectifier. A file decodes with either decoder, as
        long as neither encoder nor entropy model is trained further.

        Args:
          width: channels inside the rectifier.
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

    def transmit(self, y, exchange: Exchange) -> tf.Tensor:
        """Walks the latents in coding order.

        Args:
          y: [B, h, w, M] float, or None where the exchange has no latents (decoding).
          exchange: what takes each latent and gives it back quantized.

        Returns:
          y_hat, [B, h, w, M] float32: y as the decoder has it.
        """
        raise NotImplementedError

    def latent_channels(self) -> dict:
        """Latent's name -> (downsampling from the picture, channels)."""
        raise NotImplementedError

    def call(self, x, exchange: Exchange | None = None) -> tf.Tensor:
        """Maps pictures to their reconstructions.

        Args:
          x: [B, H, W, 3] float32 in [0, 1].
          exchange: takes the latents; None rounds them, as a decoder receives them.

        Returns:
          x_hat: [B, H, W, 3] float32, not clipped.
        """
        exchange = Rounding() if exchange is None else exchange
        y_bar = self.rectify(self.transmit(self.analyze(x), exchange))
        return self.synthesize(y_bar, tf.shape(x)[1], tf.shape(x)[2])

    def analyze(self, x) -> tf.Tensor:
        """`x: [B, H, W, 3]` float32 in [0, 1] -> y: [B, h, w, M] float32."""
        return tf.cast(self.g_a(pad_to_multiple(x, self.downsampling)), tf.float32)

    def rectify(self, y_hat) -> tf.Tensor:
        """Maps `y_hat` to `y_bar`, the input of `synthesize`: [B, h, w, M] float32 both.

        Without a rectifier, `y_bar` is `y_hat`.
        """
        return y_hat if self.rectifier is None else self.rectifier(y_hat)

    def synthesize(self, y_bar, height, width) -> tf.Tensor:
        """`y_bar` -> x_hat: [B, height, width, 3] float32, not clipped."""
        return tf.cast(self.g_s(y_bar), tf.float32)[:, :height, :width]

    def latent_shapes(self, height, width) -> dict:
        """Latent's name -> int32 [4], for one picture of that size."""
        shapes = {}
        for name, (down, channels) in self.latent_channels().items():
            rows, columns = (
                -(-side // self.downsampling) * (self.downsampling // down)
                for side in (height, width)
            )
            shapes[name] = tf.stack([1, rows, columns, channels])
        return shapes

    def parts(self) -> dict:
        """Name -> Keras layer: the networks, such as g_a and h_s, and the entropy models."""
        return {n: v for n, v in vars(self).items() if isinstance(v, keras.layers.Layer)}

    def group(self, name: str) -> dict:
        """The parts that belong to a group of `GROUPS`; a ValueError lists the known ones."""
        members = {
            "encoder": self.encoder_parts,
            "decoder": (*self.decoder_parts, "rectifier"),
        }
        if name == "entropy":
            others = sum(members.values(), ())
            return {n: part for n, part in self.parts().items() if n not in others}
        if name not in members:
            raise ValueError(f"unknown group of parts {name!r}; known: {', '.join(GROUPS)}")
        return {n: part for n, part in self.parts().items() if n in members[name]}


def pad_to_multiple(x: tf.Tensor, multiple: int) -> tf.Tensor:
    """Repeats the last row and column until both sides are multiples: `[B, H, W, C]`, any size.

    Edge padding works from 1x1 up, where reflection needs a picture larger than the padding.
    """
    for axis in (1, 2):
        side = x.shape[axis]
        if side is not None and side % multiple == 0:
            continue
        side = tf.shape(x)[axis]
        padded = -(-side // multiple) * multiple
        x = tf.gather(x, tf.minimum(tf.range(padded), side - 1), axis=axis)
    return x
