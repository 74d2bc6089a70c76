"""Tests the grouping of models into curves, and the names of curves."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tfquant.evaluation import identity
from tfquant.training.experiment import Experiment

# Settings that do not identify a curve, as the documentation lists them.
FREE = {
    "lmbda", "seed", "validation_images",
    "joint_steps", "post_steps", "qr_soft_steps", "qr_predictive_steps",
}  # fmt: skip
# An experiment in which every setting has an effect, except those of a range of rates.
FULL = {
    **dataclasses.asdict(
        Experiment(
            codec="ms_hyper", codec_options={"N": 64, "M": 96}, plan="mix",
            context_branch="sua:pathwise", stages=("joint", "post", "qr_soft", "qr_predictive"),
            train_images="photographs", background="white",
        )
    ),
    "codec": "c",
}  # fmt: skip
# The same for a range of rates.
RANGE = {**FULL, "lmbda_range": (0.001, 0.05)}
OTHER = {
    "codec": "d",
    "codec_options": {"N": 64, "M": 96, "g_a": "residual"},
    "stages": ("joint", "post", "qr_predictive"),
    "downscale": (0.6, 0.95),
    "rate_branch": "sua:expected",
    "distortion_branch": "sha:standard",
    "context_branch": "sha:standard",
    "background": "black",
}


def other(field):
    """Returns a value of a setting that differs from FULL's."""
    value = FULL[field]
    if field in OTHER:
        return OTHER[field]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value}other"


def named(*experiments, precision="float32"):
    """Returns the names of the curves of models with these experiments."""
    codecs = [e.get("codec", "c") for e in experiments]
    asked = [identity.Trained(c, e, precision) for c, e in zip(codecs, experiments)]
    return [curve.name for curve in identity.name_curves(asked)]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Experiment)])
def test_every_field_except_the_listed_ones_identifies_a_curve_and_is_named(field):
    base = RANGE if field == "quality_levels" else FULL
    first, second = named(base, {**base, "lmbda": 0.05, field: other(field)})
    if field in FREE:
        assert first == second == "c+STP mix"
    else:
        assert first != second
        told = {"codec": "d+STP", "plan": "mixother", "codec_options": "g_a=residual",
                "stages": "+QR", "rectifier_width": "rectifier_width=49"}  # fmt: skip
        assert told.get(field, f"{field}=") in second


def test_widths_follow_lmbda_and_other_options_do_not():
    low = {**FULL, "lmbda": 0.01}
    high = {**FULL, "lmbda": 0.05, "codec_options": {"N": 192, "M": 320}}
    residual = {**high, "codec_options": {"N": 192, "M": 320, "g_a": "residual"}}
    assert named(low, high, residual) == ["c+STP mix", "c+STP mix", "c+STP mix g_a=residual"]


def test_a_field_of_a_later_version_identifies():
    first, second, third = named(FULL, {**FULL, "later": "a"}, {**FULL, "later": "b"})
    assert (first, second, third) == ("c+STP mix", "c+STP mix later=a", "c+STP mix later=b")


def test_a_field_that_an_old_manifest_lacks_has_its_default():
    old = {key: value for key, value in FULL.items() if key not in ("hyper_aun", "clip_norm")}
    first, second = named(old, {**FULL, "lmbda": 0.05})
    assert first == second == "c+STP mix"
    assert len(set(named(old, {**FULL, "lmbda": 0.05, "clip_norm": 0.0}))) == 2


def test_a_value_that_an_old_manifest_names_otherwise_is_the_same():
    old, same = {**FULL, "stop_gradient": True}, {**FULL, "lmbda": 0.05, "stop_gradient": "both"}
    assert len(set(named(old, same))) == 1
    assert len(set(named({**old, "stop_gradient": False}, same))) == 2


@pytest.mark.slow
def test_names_differ_exactly_if_settings_differ():
    """Uses random combinations of two values per field, each with its own lmbda."""
    draw = random.Random(1)
    for _ in range(50):
        # Without the stage, its own settings have no effect.
        fields = draw.sample(sorted(FULL.keys() - {"quality_levels", "stages"}), 4)
        drawn = [
            {**FULL, **{f: other(f) for f in fields if draw.random() < 0.5}, "lmbda": 0.01 * i}
            for i in range(1, 9)
        ]
        names = named(*drawn)
        kept = [repr([e[f] for f in sorted(FULL) if f not in FREE]) for e in drawn]
        for i in range(8):
            for j in range(i):
                assert (names[i] == names[j]) == (kept[i] == kept[j]), (fields, names)
        backwards = named(*drawn[::-1])
        assert backwards[::-1] == names  # in any order


def test_a_name_has_only_the_settings_that_differ():
    joint = {**FULL, "codec": "ms_hyper_zero", "plan": "sua_ste", "stages": ["joint"]}
    bounds = [{**joint, "joint_sigma_bound": bound} for bound in (1e-6, 0.11)]
    assert named(*bounds) == [
        "ms_hyper_zero sua_ste joint_sigma_bound=1e-06",
        "ms_hyper_zero sua_ste joint_sigma_bound=0.11",
    ]
    assert named(joint) == ["ms_hyper_zero sua_ste"]
    aun = {**joint, "plan": "aun", "stop_gradient": "none"}
    assert named(joint, aun) == [
        "ms_hyper_zero sua_ste stop_gradient=both",
        "ms_hyper_zero aun stop_gradient=none",
    ]


def test_the_post_stage_makes_another_curve_if_it_was_executed():
    joint = {**FULL, "stages": ["joint"]}
    both = {**FULL, "stages": ["joint", "post"]}
    after = {**FULL, "stages": ["post"], "init_from": "runs/joint"}
    passed_over = {**both, "post_steps": 0, "lmbda": 0.05}
    assert named(joint, both, after, passed_over) == [
        "c mix stages=joint", "c mix stages=joint,post", "c mix stages=post", "c mix stages=joint"
    ]  # fmt: skip


def test_the_existence_of_a_starting_run_identifies_but_not_its_folder():
    post = {**FULL, "stages": ["post"]}
    low, high = ({**post, "init_from": f"runs/{x}", "lmbda": x} for x in (0.01, 0.05))
    assert named(low, high) == ["c mix", "c mix"]
    joint = {**FULL, "stages": ["joint"]}
    assert named(joint, {**joint, "init_from": "runs/a", "lmbda": 0.05}) == [
        "c mix init_from=false", "c mix init_from=true"
    ]  # fmt: skip


def test_settings_without_effect_are_ignored():
    joint = {**FULL, "stages": ["joint"]}
    idle = {"post_sigma_bound": 0.5, "rectifier_width": 8, "qr_weight": 3.0}
    assert named(joint, {**joint, **idle, "lmbda": 0.05}) == ["c mix", "c mix"]
    control = {**FULL, "rectifier_width": 0}
    idle = {"rectifier_depth": 9, "qr_weight": 3.0}
    assert len(set(named(control, {**control, **idle, "lmbda": 0.05}))) == 1
    # The joint run from which this one started may have had them.
    post = {**FULL, "stages": ["post"], "init_from": "a"}
    assert len(set(named(post, {**post, "joint_sigma_bound": 0.5, "lmbda": 0.05}))) == 2


@pytest.mark.parametrize(
    "change,words",
    [
        ({"seed": 2}, ("seed=1", "seed=2")),
        ({"joint_steps": 20}, ("joint_steps=10000", "joint_steps=20")),
        ({"codec_options": {"N": 128, "M": 96}}, ("N=64", "N=128")),
        ({"seed": 2, "validation_images": 3},
         ("seed=1 validation_images=16", "seed=2 validation_images=3")),
        ({}, ("repeat=1", "repeat=2")),
        ({"init_from": "elsewhere"}, ("repeat=1", "repeat=2")),
    ],
)  # fmt: skip
def test_two_models_at_one_lmbda_are_two_curves(change, words):
    base = {**FULL, "init_from": "a"}
    low, high = ({**base, "lmbda": lmbda} for lmbda in (0.01, 0.05))
    assert named(low, high, {**high, **change}, {**low, **change}) == [
        f"c+STP mix {word}" for word in (words[0], words[0], words[1], words[1])
    ]


def test_another_seed_at_another_lmbda_is_a_point_of_the_same_curve():
    assert named({**FULL, "lmbda": 0.01}, {**FULL, "lmbda": 0.05, "seed": 2}) == ["c+STP mix"] * 2


def test_only_the_curve_that_has_two_models_at_one_lmbda_is_split():
    aun = {**FULL, "plan": "aun"}
    assert named(FULL, {**FULL, "seed": 2}, aun, {**aun, "seed": 3, "lmbda": 0.05}) == [
        "c+STP mix seed=1", "c+STP mix seed=2", "c+STP aun", "c+STP aun"
    ]  # fmt: skip


def test_exports_of_one_run_in_two_precisions_are_two_curves():
    asked = [identity.Trained("c", FULL, precision) for precision in ("float32", "bfloat16")]
    assert [curve.name for curve in identity.name_curves(asked)] == [
        "c+STP mix export_precision=float32", "c+STP mix export_precision=bfloat16"
    ]  # fmt: skip


def test_the_identity_has_every_setting_except_the_free_ones():
    (curve,) = identity.name_curves([identity.Trained("c", FULL, "float32")])
    idle = {"quality_levels", "codec_options"}
    assert curve.identity.keys() == (FULL.keys() - FREE - idle) | {"export_precision"}
    assert curve.identity["joint_sigma_bound"] == 0.11
    assert curve.identity["stages"] == ["joint", "post", "qr_soft", "qr_predictive"]


def test_shared_settings_are_listed_unless_they_are_defaults():
    experiments = [{**FULL, "distortion": "ms_ssim", "plan": plan} for plan in ("mix", "aun")]
    asked = [identity.Trained("c", experiment, "float32") for experiment in experiments]
    found = identity.shared([curve.identity for curve in identity.name_curves(asked)])
    assert identity.describe(found) == (
        "distortion=ms_ssim context_branch=sua:pathwise train_images=photographs background=#ffffff"
    )


@pytest.mark.parametrize(
    "experiment,expected",
    [
        ({"stages": ["joint", "post"], "rectifier_width": 48}, "c"),
        ({"stages": ["qr_predictive"], "rectifier_width": 48}, "c+QR"),
        ({"stages": ["qr_soft", "qr_predictive"], "rectifier_width": 48}, "c+STP"),
        (
            {"stages": ["qr_soft", "qr_predictive"], "rectifier_width": 48, "qr_soft_steps": 0},
            "c+QR",
        ),
        ({"stages": ["qr_predictive"], "rectifier_width": 0}, "c+decoder"),
        ({"stages": ["qr_soft", "qr_predictive"], "rectifier_width": 0}, "c+soft+decoder"),
        ({"stages": ["joint", "qr_soft"], "rectifier_width": 48}, "c+soft"),
        ({}, "c"),
    ],
)
def test_a_curves_name_shows_its_rectifier(experiment, expected):
    assert named({"plan": "mix", **experiment}) == [f"{expected} mix"]


def test_a_rectifier_is_named_by_what_differs_among_rectifiers():
    light = {**FULL, "stages": ["qr_predictive"], "init_from": "a"}
    wide = {**light, "rectifier_width": 96, "rectifier_depth": 3}
    baseline = {**FULL, "stages": ["joint"]}
    assert named(baseline, light) == ["c mix", "c+QR mix"]
    assert named(baseline, light, wide) == [
        "c mix",
        "c+QR mix rectifier_width=48 rectifier_depth=2",
        "c+QR mix rectifier_width=96 rectifier_depth=3",
    ]


def curves(*models):
    """Returns the names of the curves of (experiment, record of its start, coded lmbda)."""
    asked = [identity.Trained(e["codec"], e, "float32", start, lmbda) for e, start, lmbda in models]
    return [curve.name for curve in identity.name_curves(asked)]


def started(experiment, start, lmbda=0.01, **own):
    """Returns a model that started from a run of the given (experiment, start)."""
    record = {"experiment": start[0], **({"init_from": start[1]} if start[1] else {})}
    return {**experiment, "init_from": "runs/start", "lmbda": lmbda, **own}, record, None


PLAIN = {**FULL, "codec": "ms_hyper_zero", "plan": "sua_ste", "context_branch": ""}
JOINT = {**PLAIN, "stages": ["joint"], "lmbda": 0.01}
POST = {**PLAIN, "stages": ["post"]}


@pytest.mark.parametrize(
    "change,words",
    [
        ({"plan": "aun"}, ("ms_hyper_zero sua_ste", "ms_hyper_zero aun")),
        ({"clip_norm": 0.0}, ("", "init_from.clip_norm=0")),
        ({"joint_sigma_bound": 0.2}, ("joint_sigma_bound=0.11", "joint_sigma_bound=0.2")),
        ({"alpha_max": 8.0}, ("alpha_max=12", "alpha_max=8")),
        ({"start": "glorot"}, ("start=klt", "start=glorot")),
        ({"seed": 2}, ("", "init_from.seed=2")),
        ({"joint_steps": 7}, ("joint_steps=10000", "joint_steps=7")),
        ({"codec_options": {"N": 64, "M": 96, "family": "laplacian"}}, ("", "laplacian")),
        ({"later": 3}, ("", "later=3")),
    ],
)
def test_runs_that_start_from_different_experiments_are_different_curves(change, words):
    starts = JOINT, {**JOINT, **change}
    found = curves(*(started(POST, (start, None)) for start in starts))
    assert found[0] != found[1]
    assert all(word in name for word, name in zip(words, found))


def test_a_start_of_a_run_with_a_joint_stage_is_named_by_what_differs():
    starts = [(JOINT, None), ({**JOINT, "plan": "aun"}, None)]
    assert curves(*(started(JOINT, start) for start in starts)) == [
        "ms_hyper_zero sua_ste", "ms_hyper_zero sua_ste init_from.plan=aun"
    ]  # fmt: skip


def test_the_start_of_a_start_identifies():
    deep = [started(JOINT, ({**JOINT, "crop": crop}, None)) for crop in (128, 192)]
    found = curves(*(started(POST, model[:2]) for model in deep))
    assert found[0].endswith("init_from.init_from.crop=128")
    assert found[1].endswith("init_from.init_from.crop=192")
    assert (
        found[0] != curves(started(POST, (JOINT, None)), *(started(POST, m[:2]) for m in deep))[0]
    )


def test_a_setting_that_neither_a_run_nor_its_start_uses_is_ignored():
    """The flags of the post stage's command differ in settings of the joint stage."""
    idle = {"plan": "aun", "joint_learning_rate": 0.5, "alpha_max": 8.0, "joint_sigma_bound": 0.3}
    models = [started({**POST, **change}, (JOINT, None), lmbda) for change, lmbda in
              (({}, 0.01), (idle, 0.05))]  # fmt: skip
    assert curves(*models) == ["ms_hyper_zero sua_ste"] * 2


def test_an_unknown_start_is_named_beside_a_known_one():
    known = started(POST, (JOINT, None))
    unknown = ({**POST, "init_from": "runs/old", "lmbda": 0.05}, None, None)
    assert curves(known, unknown) == [
        "ms_hyper_zero sua_ste init_from.stages=joint",
        "ms_hyper_zero sua_ste init_from.stages=unknown",
    ]


def test_starts_at_the_own_lmbda_and_at_another_one_are_two_curves():
    def at(own, start):
        return started(POST, ({**JOINT, "lmbda": start}, None), own)

    own = [at(0.01, 0.01), at(0.05, 0.05)]
    assert len(set(curves(*own))) == 1
    assert len(set(curves(at(0.01, 0.01), at(0.05, 0.01), at(0.1, 0.01)))) == 1
    found = curves(*own, at(0.1, 0.01), at(0.2, 0.01))
    assert found[:2] == ["ms_hyper_zero sua_ste"] * 2
    assert found[2:] == ["ms_hyper_zero sua_ste init_from.lmbda=0.01"] * 2


@pytest.mark.parametrize(
    "base,change",
    [
        ({"plan": "aun"}, {"alpha_max": 8.0, "alpha_min": 2.0}),
        ({"plan": "mix"}, {"alpha_max": 8.0}),
        ({"plan": "aun"}, {"hyper_aun": True}),
        ({"plan": "aun"}, {"rate_branch": "aun:pathwise", "context_branch": "aun:pathwise"}),
        ({"plan": "aun"}, {"plan": "mix", "distortion_branch": "aun:pathwise"}),
        ({"background": "white"}, {"background": "#ffffff"}),
        ({"background": "white"}, {"background": "255,255,255"}),
        ({"train_images": ""}, {"background": "black", "train_images": "dead_leaves"}),
        ({"train_images": "tfds:a"}, {"background": "black"}),
        ({"train_images": "ds/r"}, {"train_images": "ds/r/"}),
        ({"train_images": "a,b"}, {"train_images": "b/,a"}),
        ({"downscale": ()}, {"downscale": [1.0, 1.0]}),
        ({"train_images": ""}, {"train_images": None, "background": None, "downscale": None}),
        ({}, {"quality_levels": 9}),
        ({}, {"codec_options": {"N": 64, "M": 96, "family": "gaussian", "g_a": "plain"}}),
        ({"codec_options": {}}, {"codec_options": {"N": 128, "M": 192}}),
        ({"codec": "ms_hyper"}, {"stop_gradient": "none"}),
        ({"codec": "factorized"}, {"joint_sigma_bound": 0.3, "post_sigma_bound": 0.1}),
        ({"codec": "factorized"}, {"hyper_aun": True, "context_branch": "sua:pathwise"}),
        ({"hyper_aun": True}, {"context_branch": "aun:pathwise"}),
        ({"stages": ["joint"]}, {"post_learning_rate": 1.0, "post_schedule": "constant"}),
        ({"post_steps": 0}, {"post_sigma_bound": 1.0}),
        ({"qr_weight": 0.0}, {"qr_distance": "l1", "qr_stop_gradient": True}),
        ({"rectifier_width": 0}, {"rectifier_depth": 7, "qr_distance": "l1"}),
    ],
)
def test_a_setting_without_effect_and_a_spelling_do_not_identify(base, change):
    first = {**PLAIN, **base}
    found = curves((first, None, None), ({**first, **change, "lmbda": 0.05}, None, None))
    assert len(set(found)) == 1
    both = curves((first, None, None), ({**first, **change}, None, None))
    assert [name.rpartition(" ")[2] for name in both] == ["repeat=1", "repeat=2"]


def test_models_for_a_range_of_rates_are_named_by_their_base():
    bases = [{**RANGE, "lmbda": base} for base in (0.0067, 0.01)]
    models = [(base, None, lmbda) for base in bases for lmbda in (0.001, 0.05)]
    assert curves(*models) == ["c+STP mix lmbda=0.0067"] * 2 + ["c+STP mix lmbda=0.01"] * 2


def test_two_families_of_widths_and_lengths_that_follow_lmbda_are_two_curves():
    def at(lmbda, N, steps):
        return {**JOINT, "lmbda": lmbda, "codec_options": {"N": N, "M": 96}, "joint_steps": steps}

    small = [at(0.01, 64, 10), at(0.05, 96, 20), at(0.1, 96, 20)]
    large = [at(0.01, 96, 20), at(0.05, 128, 30), at(0.1, 128, 30)]
    assert named(*small, *large) == (
        ["ms_hyper_zero sua_ste N=64,96 joint_steps=10,20"] * 3
        + ["ms_hyper_zero sua_ste N=96,128 joint_steps=20,30"] * 3
    )
    assert named(*small) == ["ms_hyper_zero sua_ste"] * 3
    # With another number of models at one lmbda, equal widths make a curve.
    assert named(*small[:2], *large[:1]) == [
        "ms_hyper_zero sua_ste N=64 joint_steps=10", "ms_hyper_zero sua_ste N=96 joint_steps=20",
        "ms_hyper_zero sua_ste N=96 joint_steps=20",
    ]  # fmt: skip
