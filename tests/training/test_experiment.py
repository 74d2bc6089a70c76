"""Experiments: validation, stages and JSON."""

import json

import pytest

from tfquant.quantization.plans import PLANS
from tfquant.quantization.surrogates import Branch
from tfquant.training.experiment import STAGES, Experiment


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"plan": "mixx"}, "unknown plan 'mixx'; known: aun, aun_ep, mix"),
        ({"rate_branch": "stee:pathwise"}, "unknown surrogate 'stee'; known: round, sha, aun"),
        ({"rate_branch": "aun"}, "surrogate:estimator.*'aun'"),
        ({"rate_branch": "round:pathwise"}, "'round' has no 'pathwise' gradient; possible: straig"),
        ({"distortion_branch": "sua:expected"}, "distortion branch sua:expected cannot use the"),
        ({"context_branch": "aun:expected"}, "context branch aun:expected cannot use the"),
        ({"start": "dct"}, "unknown start 'dct'; known: klt, glorot"),
        ({"stop_gradient": "mu"}, "unknown stop_gradient 'mu'; known: both, distortion, none"),
        ({"mean_gradient": "expected"}, "no closed form for the rate branch sua:expected"),
        ({"stages": ("joint", "qr")}, "unknown stage 'qr'; known: joint, post"),
        ({"distortion": "psnr"}, "unknown distortion 'psnr'; known: mse, ms_ssim"),
        ({"joint_schedule": "linear"}, "unknown joint_schedule 'linear'; known: constant"),
        ({"lmbda": 0.0}, "lmbda must be a positive number; got 0.0"),
        ({"lmbda": float("nan")}, "lmbda must be a positive number; got nan"),
        ({"batch_size": 0}, "batch_size must be a positive number; got 0"),
        ({"crop": 100}, "crop must be a multiple of 64; got 100"),
        ({"crop": 0}, "crop must be a positive number; got 0"),
        ({"joint_steps": -1}, "joint_steps must be a number of at least 0; got -1"),
        ({"post_learning_rate": 0.0}, "post_learning_rate must be a positive number; got 0.0"),
        ({"post_sigma_bound": 0.0}, "post_sigma_bound must be a positive number; got 0.0"),
        ({"clip_norm": -1.0}, "clip_norm must be a number of at least 0; got -1.0"),
        ({"alpha_min": 0.0}, "alpha_min must be a positive number; got 0.0"),
        ({"alpha_max": float("nan")}, "alpha_max must be a positive number; got nan"),
        ({"lmbda": float("inf")}, "lmbda must be a positive number; got inf"),
        ({"post_learning_rate": float("inf")}, "post_learning_rate must be a positive .*; got inf"),
        ({"clip_norm": float("inf")}, "clip_norm must be a number of at least 0; got inf"),
        ({"qr_weight": float("nan")}, "qr_weight must be a number of at least 0; got nan"),
        ({"seed": 2**32}, "seed must be below 4294967296; got 4294967296"),
        ({"alpha_max": 0.5}, "alpha_max must not be below alpha_min=1.0; got 0.5"),
        ({"downscale": (0.9, 0.6)}, r"0 < smallest <= largest <= 1; got \(0.9, 0.6\)"),
        ({"qr_distance": "l3"}, "unknown qr_distance 'l3'; known: l2, l1, smooth_l1, cosine"),
        ({"qr_weight": -1.0}, "qr_weight must be a number of at least 0; got -1.0"),
        ({"rectifier_width": 1}, "rectifier_width must be at least 2, or 0 for no rectifier"),
        ({"stages": ("qr_predictive",)}, "'qr_predictive' does not train the encoder and entropy"),
        ({"stages": ("post",)}, "'post' does not train the encoder: it needs an earlier stage"),
        ({"stages": ()}, "nothing to train: no stage"),
        ({"joint_steps": 0, "post_steps": 0}, "nothing to train: joint_steps=0, post_steps=0"),
        ({"stages": ("joint", "joint")}, "each stage may occur at most once; got joint, joint"),
        (
            {"stages": ("joint", "qr_predictive", "post")},
            "stage 'post' would train the decoder without the rectifier, which 'qr_predictive'",
        ),
        ({"downscale": (0.9,)}, r"downscale takes two factors.*; got \(0.9,\)"),
    ],
)
def test_an_invalid_experiment_is_rejected_with_the_possible_values(changes, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**changes)


def test_a_control_without_rectifier_may_be_trained_further():
    """Uses `qr_predictive` with width 0, which inserts nothing before the decoder."""
    stages = ("joint", "qr_predictive", "post")
    assert not Experiment(stages=stages, rectifier_width=0).rectified


def test_the_stages_are_the_papers():
    """Compares with sections 4 and 5.2.

    First surrogates and a bound of 0.11, then only the decoder, on rounded latents, and a bound of
    1e-6.
    """
    joint, post = Experiment(plan="sua_pge", joint_steps=450, post_steps=100).all_stages()
    assert (joint.name, joint.steps, joint.plan) == ("joint", 450, PLANS["sua_pge"])
    assert (joint.sigma_bound, joint.frozen, joint.track_offsets) == (0.11, (), True)
    assert (float(joint.alpha(0)), float(joint.alpha(400))) == (1.0, 12.0)

    assert (post.name, post.steps, post.plan) == ("post", 100, PLANS["round"])
    assert (post.sigma_bound, post.frozen, post.track_offsets) == (1e-6, ("encoder",), False)
    assert (float(post.alpha(0)), float(post.alpha(100))) == (12.0, 12.0)


def test_stages_come_in_the_order_of_their_names():
    assert list(STAGES) == ["joint", "post", "qr_soft", "qr_predictive"]
    assert [s.name for s in Experiment(stages=("post",), init_from="run").all_stages()] == ["post"]
    names = ("joint", "qr_predictive")
    assert tuple(s.name for s in Experiment(stages=names).all_stages()) == names


def test_the_rectifiers_stages_are_soft_to_predictive_training():
    """Compares with Luo and Chen (2023).

    First everything with additive noise, L = R + lmbda D + a_qr d, decoded from y_tilde. Then
    decoder and rectifier on rounded latents, L = lmbda D + a_qr d, decoded from y_bar, without
    changing a bit.
    """
    soft, predictive = Experiment(
        stages=("qr_soft", "qr_predictive"), lmbda=0.02, qr_weight=0.3, qr_distance="l1",
        distortion="ms_ssim", qr_soft_steps=40, qr_predictive_steps=10,
    ).all_stages()  # fmt: skip
    assert (soft.steps, soft.plan, soft.sigma_bound) == (40, PLANS["aun"], 0.11)
    assert soft.loss == {"bpp": 1.0, "ms_ssim": 0.02, "feature_l1": 0.3}
    assert (soft.frozen, soft.track_offsets, soft.rectified) == ((), True, False)
    assert (predictive.steps, predictive.plan) == (10, PLANS["round"])
    assert predictive.loss == {"ms_ssim": 0.02, "feature_l1": 0.3}
    assert predictive.frozen == ("encoder", "entropy") and predictive.rectified
    assert predictive.sigma_bound is None and not predictive.track_offsets


def test_a_codec_has_a_rectifier_if_a_stage_trains_one_and_it_has_a_width():
    assert not Experiment().rectified
    assert Experiment(stages=("joint", "qr_predictive")).rectified
    assert not Experiment(stages=("joint", "qr_predictive"), rectifier_width=0).rectified


def test_the_control_without_rectifier_trains_only_on_rate_and_distortion():
    """Checks that its gain since the start is recorded like the rectifier's."""
    soft, predictive = Experiment(
        stages=("qr_soft", "qr_predictive"), lmbda=0.02, rectifier_width=0
    ).all_stages()
    assert soft.loss == {"bpp": 1.0, "mse": 0.02} and predictive.loss == {"mse": 0.02}
    assert predictive.frozen == ("encoder", "entropy")
    assert soft.counts_gain and predictive.counts_gain
    assert not any(stage.counts_gain for stage in Experiment().all_stages())


def test_branches_replace_those_of_the_named_plan():
    plan = Experiment(
        plan="mix", rate_branch="sua:expected", hyper_aun=True, stop_gradient="distortion"
    ).joint_plan()
    assert (plan.rate, plan.distortion) == (Branch("sua", "expected"), PLANS["mix"].distortion)
    assert plan.hyper_aun and plan.stop_gradient == "distortion"
    assert Experiment(plan="mix").joint_plan() == PLANS["mix"]


def test_an_experiment_survives_json():
    experiment = Experiment(
        codec_options={"N": 8, "g_a": "res"}, downscale=(0.6, 0.95), stages=("joint",), seed=7
    )
    back = Experiment.from_json(experiment.to_json())
    assert back == experiment


@pytest.mark.parametrize("switch,meaning", [(True, "both"), (False, "none")])
def test_an_old_experiment_with_a_boolean_stop_gradient_is_read(switch, meaning):
    """Includes files that lack newer fields."""
    values = {**json.loads(Experiment(seed=5).to_json()), "stop_gradient": switch}
    for later in ("mean_gradient", "start"):
        del values[later]
    found = Experiment.from_json(json.dumps(values))
    assert found == Experiment(seed=5, stop_gradient=meaning)


def test_an_experiment_of_another_version_is_refused():
    values = {**json.loads(Experiment().to_json()), "warp": 9}
    with pytest.raises(ValueError, match="another tfquant version: unknown fields warp"):
        Experiment.from_json(json.dumps(values))
