"""Adds a codec with its own networks, trains it and compresses a picture.

    python examples/custom_codec.py runs/tiny

The codec has small networks and a hyperprior: the latent `z` is sent first, and `h_s` predicts the
mean and the scale of each element of `y` from it. Most networks have plain Keras layers. The layers
of `h_s` come from `tfquant.layers.exact`, so that files decode on every machine.

    x --> g_a --> y ----------------> Q --> y_hat --> g_s --> x_hat
                  |                   |
                 h_a --> z --> Q --> h_s --> p(y | z_hat)
"""

import sys

import tensorflow as tf

import tfquant as tq
from tfquant.layers import exact
from tfquant.legacy_keras import keras


class Tiny(tq.Codec):
    """A codec of eight convolutions with a hyperprior.

    Args:
      N: channels of the hidden layers and of z.
      M: channels of y.
    """

    downsampling = 16  # the stride down to z: pictures are padded to a multiple of it

    def __init__(self, N: int = 32, M: int = 16):
        super().__init__(name="tiny", dtype="float32")
        self.N, self.M = N, M
        self.g_a = keras.Sequential([conv(N, "relu"), conv(M)], name="g_a")
        self.g_s = keras.Sequential([deconv(N, "relu"), deconv(3)], name="g_s")
        self.h_a = keras.Sequential([conv(N, "relu"), conv(N)], name="h_a")
        # `h_s` decides what the bits of a file mean. It computes in float32, and an exported model
        # computes it with integers, which give the same result on every machine.
        options = {"kind": exact.Conv2DTranspose, "dtype": "float32"}
        self.h_s = keras.Sequential(
            [deconv(N, "relu", **options), deconv(2 * M, **options)], name="h_s"
        )
        self.z_model = tq.FactorizedModel(N, name="z")
        self.y_model = tq.ConditionalModel("gaussian", zero_center=True)  # its name is "y"
        self.entropy_models = (self.z_model, self.y_model)  # in coding order

    def latent_channels(self) -> dict:
        """Maps each latent's name to its downsampling and its number of channels."""
        return {"y": (4, self.M), "z": (16, self.N)}

    def transmit(self, y, exchange: tq.Exchange) -> tf.Tensor:
        """Passes z and then y to the exchange. A decoder has no latents: `y` is None."""
        z = None if y is None else self.h_a(y)
        z_hat = exchange(self.z_model, z).context
        return exchange(self.y_model, y, self.h_s(z_hat)).distortion


def conv(filters: int, activation=None, **options) -> keras.layers.Layer:
    """Builds a convolution that halves both sides."""
    return keras.layers.Conv2D(filters, 5, 2, padding="same", activation=activation, **options)


def deconv(
    filters: int, activation=None, kind=keras.layers.Conv2DTranspose, **options
) -> keras.layers.Layer:
    """Builds a convolution that doubles both sides."""
    return kind(filters, 5, 2, padding="same", activation=activation, **options)


tq.models.CODECS["tiny"] = Tiny


def main(run_dir: str, steps: int = 300) -> None:
    """Trains the codec on generated pictures and compresses one of them."""
    from tfquant.data.dead_leaves import dead_leaves

    experiment = tq.Experiment(
        codec="tiny",
        codec_options={"N": 32, "M": 24},
        stages=("joint",),
        joint_steps=steps,
        crop=64,
    )
    model = tq.load(tq.train(experiment, run_dir, epoch_steps=steps, progress="line"))
    picture = dead_leaves(1, 256)
    data = model.compress(picture)
    assert (model.decompress(data) == model.evaluate(picture)["image"]).all()
    pixels = picture.shape[0] * picture.shape[1]
    print(f"{len(data)} bytes, {8 * len(data) / pixels:.3f} bits per pixel")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/tiny")
