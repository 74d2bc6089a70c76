"""Tests the paper's numbers against its printed averages, and the lookup for an experiment."""

import collections
import dataclasses
from pathlib import Path

import pytest
from absl import flags

from tfquant.commands import experiment_flags, flagfiles, train
from tfquant.evaluation import paper_tables

LOW_RATES = (0.0018, 0.0035, 0.0067, 0.013)
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def recipe(name, *more):
    """Returns the experiment of a file of `configs/` with more flags."""
    values = flags.FlagValues()
    train.define_flags(values)
    lines = flagfiles.expanded([f"--flagfile={CONFIGS / name}"])
    values(["train.py", *lines, "--model_dir=unused", *more])
    return experiment_flags.experiment(values)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)  # a flagfile includes others by their path from here


@pytest.fixture(name="zero")
def _zero():
    """Returns the paper's experiment with ms_hyper_zero, sua_ste."""
    return recipe("paper_ms_hyper_zero.flags")


def found(experiment, **changes):
    """Returns (table, images, joint, post) of each row that describes the changed experiment."""
    if "codec" in changes:
        changes.setdefault("codec_options", {})  # the widths are those of the paper at low rates
    rows = paper_tables.find([dataclasses.replace(experiment, **changes)])
    return [(row.table, row.images, row.joint, row.post) for row in rows]


def test_the_average_of_each_method_is_that_of_kodak_and_tecnick():
    methods = collections.defaultdict(dict)
    for row in paper_tables.rows():
        if row.images:
            key = (row.table, row.codec, row.plan, row.joint_sigma_bound)
            methods[key][row.images] = row
    assert len(methods) == 7 + 12 + 14 + 8
    for sets in methods.values():
        assert sets.keys() == {"kodak", "tecnick", "average"}
        for stage in ("joint", "post"):
            kodak, tecnick, average = (
                getattr(sets[name], stage) for name in ("kodak", "tecnick", "average")
            )
            assert average == pytest.approx((kodak + tecnick) / 2, abs=0.0101)


def test_every_row_is_one_method_once():
    keys = [dataclasses.astuple(row)[:-2] for row in paper_tables.rows()]
    assert len(keys) == len(set(keys)) == 9 + 12 + 8 + 72 + 21 + 36 + 42 + 24


@pytest.mark.parametrize(
    "changes,expected",
    [
        ({}, [("VI", "", -9.14, -9.89), ("VII", "", -9.22, -9.89)]),
        ({"stop_gradient": "none"}, [("VI", "", -6.91, -7.54)]),
        ({"plan": "sra_sua"}, [("VI", "", -3.60, -4.08)]),
        ({"codec": "ms_hyper"}, [("III", "", -9.14, -9.89)]),
        ({"codec": "ms_hyper", "alpha_max": 4.0}, [("III", "", -6.19, -9.32)]),
        ({"codec": "ms_hyper", "alpha_max": 5.0}, []),
        ({"codec": "ms_hyper", "plan": "mix", "joint_sigma_bound": 1e-6}, [("V", "", 7.2, 5.89)]),
        (
            {"codec": "ms_hyper_zero", "plan": "aun", "joint_sigma_bound": 0.25},
            [("VII", "", 21.16, -6.81)],
        ),
        (
            {"codec_options": {"family": "laplacian"}, "plan": "mix", "joint_sigma_bound": 0.20},
            [("VII", "", 13.72, -9.12)],
        ),
        (
            {"codec_options": {"family": "mixture"}, "joint_sigma_bound": 0.05},
            [("VII", "", -11.44, -12.15)],
        ),
        (
            {"codec": "ms_context", "plan": "sua_pge", "codec_options": {"N": 192, "M": 192}},
            [("VIII", "kodak", -14.60, -15.47), ("VIII", "tecnick", -17.92, -18.84),
             ("VIII", "average", -16.26, -17.16)],
        ),
        (
            {"codec": "cheng_attn", "plan": "uq_s"},
            [("IX", "kodak", -27.44, -28.49), ("IX", "tecnick", -31.10, -33.70),
             ("IX", "average", -29.27, -31.09)],
        ),
        ({"codec": "cheng_anchor", "plan": "sua_ste"}, []),  # it did not converge
        (
            {"codec": "elic_zero", "plan": "mix"},
            [("XI", "kodak", -28.37, -28.89), ("XI", "tecnick", -34.09, -34.58),
             ("XI", "average", -31.23, -31.74)],
        ),
        # A table does not fix these.
        ({"hyper_aun": True}, [("VI", "", -9.14, -9.89), ("VII", "", -9.22, -9.89)]),
        ({"start": "glorot", "seed": 7}, [("VI", "", -9.14, -9.89), ("VII", "", -9.22, -9.89)]),
        # The paper has none of these.
        ({"codec": "factorized"}, []),
        ({"codec_options": {"family": "laplacian"}}, []),
    ],
)  # fmt: skip
def test_an_experiment_finds_the_numbers_of_its_method(zero, changes, expected):
    assert found(zero, **changes) == expected


@pytest.mark.parametrize(
    "changes,fields",
    [
        ({"clip_norm": 1.0}, ["clip_norm"]),
        ({"stop_gradient": "distortion"}, ["stop_gradient"]),
        ({"plan": "mix", "mean_gradient": "expected"}, ["mean_gradient"]),
        ({"lmbda_range": (0.0018, 0.0483)}, ["lmbda_range"]),
        ({"lmbda": 0.01}, ["lmbda"]),
        ({"joint_sigma_bound": 0.12}, ["joint_sigma_bound"]),
        ({"post_sigma_bound": 0.11}, ["post_sigma_bound"]),
        ({"distortion": "ms_ssim"}, ["distortion"]),
        ({"alpha_min": 2.0}, ["alpha_min"]),
        ({"alpha_max": 5.0, "codec": "ms_hyper"}, ["alpha_max"]),
        ({"codec": "charm", "plan": "mix", "codec_options": {"slices": 5}}, ["slices"]),
        ({"codec_options": {"g_a": "res"}}, ["g_a"]),
        ({"codec_options": {"N": 64, "M": 96}}, ["N", "M"]),
        ({"context_branch": "aun:pathwise"}, ["context_branch"]),
        ({"init_from": "another"}, ["init_from"]),
        ({"stages": ("joint", "post", "qr_soft")}, ["stages"]),
        ({"joint_steps": 1000}, ["joint_steps"]),
        ({"post_learning_rate": 3e-4}, ["post_learning_rate"]),
        ({"joint_schedule": "cosine"}, ["joint_schedule"]),
        ({"batch_size": 2, "crop": 128}, ["batch_size", "crop"]),
        ({"downscale": (0.6, 0.95)}, ["downscale"]),
        ({"precision": "bfloat16"}, ["precision"]),
        ({"plan": "sga"}, None),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_the_papers_is_named(zero, changes, fields):
    """Tests one change each. None: the paper does not have the method, so there is nothing."""
    if "codec" in changes:
        changes = {"codec_options": {}, **changes}
    experiment = dataclasses.replace(zero, **changes)
    beside = paper_tables.beside([experiment], LOW_RATES, {"kodak", ""})
    assert beside == ([], fields or []) and paper_tables.find([experiment]) == []


@pytest.mark.parametrize("name", sorted({row.codec for row in paper_tables.rows()}))
def test_the_papers_files_find_numbers_at_each_of_its_rates(name):
    low = recipe(f"paper_{name}.flags", "--plan=mix")
    widths = {"cheng": (192, 192)}.get(name[:5], (192, 320))
    high = recipe(f"paper_{name}.flags", "--plan=mix", "--lmbda=0.025",
                  *(f"--{k}={v}" for k, v in zip("NM", widths)))  # fmt: skip
    curve = [dataclasses.replace(low, lmbda=lmbda) for lmbda in LOW_RATES]
    assert paper_tables.find(curve)
    six = {row.table for row in paper_tables.find([*curve, high])}
    of_six_rates = {row.table for row in paper_tables.rows() if row.codec == name and row.images}
    assert six == of_six_rates
    rates = (*LOW_RATES, 0.025, 0.0483)
    curve += [high, dataclasses.replace(high, lmbda=0.0483)]
    beside = paper_tables.beside(curve, rates, {"tecnick"})
    assert {row.table for row in beside.rows} == of_six_rates
    if of_six_rates:
        assert {row.images for row in beside.rows} == {"tecnick"}
    else:
        assert beside.differing  # Tables III, V, VI and VII do not cover high rates


def test_a_curve_at_other_rates_or_pictures_is_not_the_papers(zero):
    curve = [dataclasses.replace(zero, lmbda=lmbda) for lmbda in LOW_RATES]

    def beside(rates, images):
        found = paper_tables.beside(curve, rates, images)
        return [row.table for row in found.rows], found.differing

    assert beside(LOW_RATES, {"", "kodak"}) == (["VI", "VII"], [])
    assert beside(LOW_RATES[:2], {"", "kodak"}) == ([], ["lmbda"])
    assert beside(LOW_RATES, {"clic"}) == ([], ["images"])
    assert paper_tables.beside([], LOW_RATES, {""}) == ([], [])


def test_branches_identify_a_method_and_not_the_name_of_its_plan(zero):
    branches = {"rate_branch": "aun:pathwise", "distortion_branch": "round:straight_through"}
    assert found(zero, **branches) == found(zero, plan="mix") != []


def test_the_points_of_a_curve_have_the_numbers_that_all_of_them_find(zero):
    charm = dataclasses.replace(zero, codec="charm", codec_options={})
    curve = [
        dataclasses.replace(charm, lmbda=lmbda, alpha_max=alpha)
        for lmbda, alpha in ((0.0067, 12.0), (0.025, 4.0))
    ]
    assert [row.post for row in paper_tables.find(curve)] == [-19.15, -19.24, -19.20]
    assert paper_tables.find([]) == []
    assert paper_tables.find([curve[0], dataclasses.replace(curve[1], plan="mix")]) == []
    # Table III has one temperature for all rates.
    other = [dataclasses.replace(each, codec="ms_hyper", lmbda=0.0067) for each in curve]
    assert paper_tables.find(other) == []


def test_the_recipe_is_that_of_the_flagfile(zero):
    flagfile = recipe("recipes/paper.flags")
    for name, value in paper_tables._RECIPE.items():
        assert getattr(flagfile, name) == value, name
