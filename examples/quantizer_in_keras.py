"""Trains a user's own Keras model whose middle is quantized.

    python examples/quantizer_in_keras.py

The model is an autoencoder of points on a circle with one number in the middle. `tfquant.Quantizer`
rounds that number. In training it replaces rounding by a surrogate, so a gradient reaches the
encoder. The example compares training with and without the layer: a model that was trained
without it is not prepared for rounding.

The model must be a Keras 2 model, which is `tf_keras` with TensorFlow 2.16 and later.
"""

import numpy as np

import tfquant as tq
from tfquant.legacy_keras import keras


def points(count: int, seed: int) -> np.ndarray:
    """Returns points on the unit circle, [count, 2] float32."""
    angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def network(outputs: int, name: str) -> keras.Model:
    """Builds a network with one hidden layer."""
    hidden = keras.layers.Dense(32, activation="relu")
    return keras.Sequential([hidden, keras.layers.Dense(outputs)], name=name)


class Anneal(keras.callbacks.Callback):
    """Raises the temperature of the quantizer after every epoch, as training of a codec does."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.get_layer("quantizer").alpha.assign(4.0 + 0.2 * epoch)


def error_with_rounding(surrogate: str, epochs: int) -> float:
    """Trains an autoencoder and returns its mean squared error with a rounded latent.

    Args:
      surrogate: a plan such as "aun", or surrogate and estimator such as "sua:pathwise"; "" for
        training without a quantizer.
      epochs: number of passes over the points.
    """
    keras.utils.set_random_seed(0)
    encoder, decoder = network(1, "encoder"), network(2, "decoder")
    middle, callbacks = [], []
    if surrogate:
        middle = [tq.Quantizer(surrogate, alpha=4.0, seed=1, name="quantizer")]
        callbacks = [Anneal()]
    model = keras.Sequential([encoder, *middle, decoder])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x = points(2048, seed=0)
    model.fit(x, x, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)
    test = points(512, seed=1)
    x_hat = decoder(tq.Quantizer()(encoder(test)))  # outside of training, every surrogate rounds
    return float(np.mean((x_hat - test) ** 2))


def main(epochs: int = 30) -> dict:
    """Prints the error after rounding for each way of training."""
    errors = {}
    for surrogate in ("", "aun", "sua_ste"):
        errors[surrogate] = error_with_rounding(surrogate, epochs)
        print(f"{surrogate or 'no quantizer':13} {errors[surrogate]:.4f}")
    return errors


if __name__ == "__main__":
    main()
