"""The trainer: a Keras model whose training step runs the current stage.

Keras' `fit` provides compilation, devices, loops and progress; this module provides the step. The
step has no host operation, so it compiles as a whole with `jit_compile=True`. All of its random
numbers come from `(seed, example index)`.
"""

from __future__ import annotations

import tensorflow as tf

from tfquant import metrics
from tfquant.codec import GROUPS, Codec
from tfquant.data.pixels import to_float
from tfquant.exchange import Exchange, Rounding, Surrogates
from tfquant.legacy_keras import keras
from tfquant.ops import random
from tfquant.ops.random import example_seeds
from tfquant.training import losses
from tfquant.training.adam import Adam, state_variable
from tfquant.training.experiment import Experiment, Stage
from tfquant.training.losses import Outcome


def check_mean_gradient(codec: Codec, experiment: Experiment) -> None:
    """Raises a ValueError if the codec has no latent with a mean for the expected gradient."""
    if experiment.mean_gradient == "expected" and not any(
        model.has_mean for model in codec.entropy_models
    ):
        raise ValueError(
            "mean_gradient 'expected' needs a Gaussian or a Laplacian with a mean;"
            f" {experiment.codec} has none"
        )


class Trainer(keras.Model):
    """Trains `codec` according to `experiment`, one stage at a time.

    Args:
      codec: the codec, built under the strategy's scope.
      experiment: the hyperparameters.

    Raises:
      ValueError: the devices cannot share the batch equally, or the codec has no latent with a mean
        for the expected gradient.
    """

    def __init__(self, codec: Codec, experiment: Experiment):
        super().__init__(name="trainer", dtype="float32")
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if experiment.batch_size % replicas:
            raise ValueError(
                f"batch_size must be a multiple of the {replicas} devices;"
                f" got {experiment.batch_size}"
            )
        check_mean_gradient(codec, experiment)
        self.codec = codec
        self.experiment = experiment
        self.stage: Stage = None  # type: ignore[assignment]  # until `begin`
        # Counts all batches of the stage. The optimizer's own counter omits skipped ones.
        self.stage_step = state_variable("stage_step")
        self.skipped = state_variable("skipped")
        self.skipped_in_a_row = state_variable("skipped_in_a_row")
        # The bound before a stage that lifts it; 0 if no stage has lifted it.
        self.lifted_sigma_bound = state_variable("lifted_sigma_bound", 0.0, tf.float32)
        latents = [f"bpp_{model.name}" for model in codec.entropy_models]
        terms = [name for stage in experiment.all_stages() for name in self._reported(stage)]
        names = [*terms, "loss", *latents, "psnr"]
        names += [f"surrogate_{name}" for name in [*terms, "loss"]]
        self._means = {name: keras.metrics.Mean(name=name) for name in dict.fromkeys(names)}

    def begin(self, stage: Stage, jit_compile: bool = False) -> None:
        """Starts `stage`: freezes its parts, sets its sigma bound, and creates a new optimizer."""
        self.stage = stage
        for counter in (self.stage_step, self.skipped, self.skipped_in_a_row):
            counter.assign(0)
        for group in GROUPS:
            for part in self.codec.group(group).values():
                part.trainable = group not in stage.frozen
        self._set_sigma_bound(stage)
        # Outside the strategy's scope, each replica would have its own moments.
        with self.distribute_strategy.scope():
            optimizer = self._fresh_optimizer(stage)
            optimizer.build(self.trained_variables())
            self.compile(optimizer=optimizer, jit_compile=jit_compile)

    def _set_sigma_bound(self, stage: Stage) -> None:
        bounds = [m.sigma_bound for m in self.codec.entropy_models if m.sigma_bound is not None]
        if stage.lifts_sigma_bound and bounds:
            self.lifted_sigma_bound.assign(bounds[0])
        elif stage.sigma_bound:
            self.lifted_sigma_bound.assign(0.0)  # a later stage keeps this stage's bound
        bound = stage.sigma_bound or float(self.lifted_sigma_bound.numpy())
        if bound:
            for model in self.codec.entropy_models:
                model.set_sigma_bound(bound)

    def _fresh_optimizer(self, stage: Stage) -> Adam:
        experiment = self.experiment
        scales_loss = experiment.precision == "float16"
        return Adam(stage.learning_rate, experiment.clip_norm or None, scales_loss)

    def trained_variables(self) -> list[tf.Variable]:
        """Returns the weights that the current stage trains."""
        return self.codec.trainable_variables

    def alpha(self) -> tf.Tensor:
        """Returns the temperature at the stage's current step, scalar float32."""
        return tf.cast(self.stage.alpha(self.stage_step), tf.float32)

    def quality(self, index: tf.Tensor) -> tf.Tensor | None:
        """Returns each example's quality in [0, 1), a function of seed and index: [B] float32.

        Returns None if the experiment has a single rate.
        """
        if not self.experiment.lmbda_range:
            return None
        return random.uniform(example_seeds(self.experiment.seed, "quality", index), []) + 0.5

    def outcome(
        self, x: tf.Tensor, exchange: Exchange, quality: tf.Tensor | None = None
    ) -> Outcome:
        """Runs a forward pass as in the current stage.

        Args:
          x: [B, H, W, 3] float32 in [0, 1].
          exchange: transmits the latents.
          quality: [B] float32 in [0, 1] for a range of rates, otherwise None.
        """
        codec, stage = self.codec, self.stage
        y = codec.analyze(x, quality)
        y_hat = codec.transmit(y, exchange)
        barrier = tf.identity if stage.features_reach_encoder else tf.stop_gradient
        y_bar = codec.rectify(barrier(y_hat))
        decoded = y_bar if stage.rectified else y_hat
        x_hat = codec.synthesize(decoded, tf.shape(x)[1], tf.shape(x)[2], quality)
        lmbda = None if quality is None else self.experiment.lmbda_at(quality)
        return Outcome(x, x_hat, exchange, barrier(y), y_hat, y_bar, lmbda)

    def _surrogate_outcome(self, batch: dict[str, tf.Tensor]) -> Outcome:
        exchange = Surrogates(self.stage.plan, self.alpha(), self.experiment.seed, batch["index"])
        return self.outcome(to_float(batch["image"]), exchange, self.quality(batch["index"]))

    def _rounded_outcome(self, batch: dict[str, tf.Tensor]) -> Outcome:
        quality = self.quality(batch["index"])
        return self.outcome(to_float(batch["image"]), Rounding(), quality)

    def _reported(self, stage: Stage) -> list[str]:
        """Returns the terms to measure: R in bpp, unweighted D, and the terms of the stage."""
        names = ["bpp", self.experiment.distortion, *stage.loss, *stage.reported]
        return list(dict.fromkeys(names))

    def _terms(self, outcome: Outcome) -> dict[str, tf.Tensor]:
        """Returns the reported terms, and the stage's loss as their weighted sum."""
        terms = {name: losses.TERMS[name](outcome) for name in self._reported(self.stage)}
        loss = tf.add_n([weight * terms[name] for name, weight in self.stage.loss.items()])
        return {**terms, "loss": loss}

    # No Python condition here depends on a tensor, and autograph conversion would take seconds.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Runs one step. A step with a non-finite loss or gradient changes no weight."""
        if self.stage.track_offsets:
            for model in self.codec.entropy_models:
                model.track_offset()
        replicas = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outcome = self._surrogate_outcome(batch)
            terms = self._terms(outcome)
            scaled = self.optimizer.scaled(terms["loss"] / replicas.num_replicas_in_sync)
        variables = self.trained_variables()
        gradients = tape.gradient(scaled, variables, unconnected_gradients="zero")
        loss, *gradients = replicas.all_reduce("SUM", [terms["loss"], *gradients])
        finite = self.optimizer.step(loss, gradients, variables)
        missed = tf.cast(~finite, tf.int64)
        self.skipped.assign_add(missed)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + 1) * missed)
        self.stage_step.assign_add(1)
        weight = tf.cast(finite, tf.float32)
        values = {
            name: self._mean(name, tf.where(finite, v, 0.0), weight) for name, v in terms.items()
        }
        assert outcome.exchange is not None
        for latent, bits in outcome.exchange.bits.items():
            per_pixel = tf.reduce_sum(bits) / tf.cast(tf.size(outcome.x) // 3, tf.float32)
            values[f"bpp_{latent}"] = self._mean(
                f"bpp_{latent}", tf.where(finite, per_pixel, 0.0), weight
            )
        values["skipped"] = self.skipped
        return values

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Measures the train-test gap: R~, D~, J~ of the surrogate and R, D, J of rounding."""
        rounded = self._rounded_outcome(batch)
        values = {name: self._mean(name, v) for name, v in self._terms(rounded).items()}
        for name, v in self._terms(self._surrogate_outcome(batch)).items():
            values[f"surrogate_{name}"] = self._mean(f"surrogate_{name}", v)
        psnr = tf.reduce_mean(metrics.psnr(rounded.x, tf.clip_by_value(rounded.x_hat, 0.0, 1.0)))
        values["psnr"] = self._mean("psnr", psnr)
        return values

    def _mean(self, name: str, value: tf.Tensor, weight: tf.Tensor | None = None) -> tf.Tensor:
        self._means[name].update_state(value, weight)
        return self._means[name].result()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())
