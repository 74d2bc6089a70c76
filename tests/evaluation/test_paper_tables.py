"""Tests the paper's numbers against its printed averages, and the lookup for an experiment."""

import collections
import dataclasses

import pytest

from tfquant.evaluation import paper_tables
from tfquant.training.experiment import Experiment

ZERO = Experiment(alpha_max=12.0)  # ms_hyper_zero, sua_ste


def found(experiment, **changes):
    """Returns (table, images, joint, post) of each row that describes the changed experiment."""
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
        ({"stop_gradient": "distortion", "plan": "sra_sua"}, [("VI", "", -3.60, -4.08)]),
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
        # The paper has none of these.
        ({"codec": "factorized"}, []),
        ({"distortion": "ms_ssim"}, []),
        ({"post_sigma_bound": 0.11}, []),
        ({"codec_options": {"g_a": "res"}}, []),
        ({"context_branch": "aun:pathwise"}, []),
    ],
)  # fmt: skip
def test_an_experiment_finds_the_numbers_of_its_method(changes, expected):
    assert found(ZERO, **changes) == expected


def test_branches_identify_a_method_and_not_the_name_of_its_plan():
    branches = {"rate_branch": "aun:pathwise", "distortion_branch": "round:straight_through"}
    assert found(ZERO, **branches) == found(ZERO, plan="mix") != []


def test_the_points_of_a_curve_have_the_numbers_that_all_of_them_find():
    curve = [
        dataclasses.replace(ZERO, codec="charm", lmbda=lmbda, alpha_max=alpha)
        for lmbda, alpha in ((0.0067, 12.0), (0.025, 4.0))
    ]
    assert [row.post for row in paper_tables.find(curve)] == [-19.15, -19.24, -19.20]
    assert paper_tables.find([]) == []
    assert paper_tables.find([curve[0], dataclasses.replace(curve[1], plan="mix")]) == []
    # Table III has one temperature for all rates.
    other = [dataclasses.replace(each, codec="ms_hyper") for each in curve]
    assert paper_tables.find(other) == []
