"""Permitted changes between two runs of the same command."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfquant.training import folder, resuming
from tfquant.training.experiment import Experiment

CONSTANT = Experiment(
    codec="factorized", codec_options={"N": 4, "M": 6}, plan="aun", joint_steps=100, post_steps=50,
    joint_schedule="constant", post_schedule="constant",
)  # fmt: skip


@pytest.fixture
def change(tmp_path, monkeypatch):
    """Returns `change(there, asked fields, standing)`: the error of `prepare`, or None."""

    def change(there, standing, **fields):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "experiment.json").unlink(missing_ok=True)
        folder.prepare(str(tmp_path / "run"), there)
        monkeypatch.setattr(resuming, "standing", lambda checkpoint: standing)
        asked = dataclasses.replace(there, **fields)
        newest = None if standing is None else "ckpt"
        try:
            folder.prepare(str(tmp_path / "run"), asked, newest)
        except ValueError as error:
            assert folder.read_experiment(str(tmp_path / "run")) == there
            return str(error)
        assert folder.read_experiment(str(tmp_path / "run")) == asked
        return None

    return change


def test_a_stage_with_a_constant_schedule_can_be_lengthened(change):
    assert change(CONSTANT, (0, 100), joint_steps=200) is None
    assert change(CONSTANT, (1, 50), post_steps=60) is None
    assert change(CONSTANT, (0, 40), joint_steps=60) is None


def test_a_stage_that_has_not_begun_may_have_any_length(change):
    cosine = dataclasses.replace(CONSTANT, post_schedule="cosine", joint_schedule="cosine")
    assert change(cosine, (0, 100), post_steps=10) is None
    assert change(cosine, None, joint_steps=7, post_steps=7) is None


def test_what_depends_on_the_length_keeps_it_and_says_why(change):
    cosine = dataclasses.replace(CONSTANT, joint_schedule="cosine")
    line = change(cosine, (0, 100), joint_steps=200)
    assert "joint_steps cannot change from 100 to 200: the cosine schedule" in line
    annealed = dataclasses.replace(CONSTANT, plan="sua_ste")
    line = change(annealed, (0, 100), joint_steps=200)
    assert "the temperature of stage joint depends on its length" in line
    assert "the run is past stage joint" in change(CONSTANT, (1, 10), joint_steps=200)
    assert "60 steps of stage joint are done" in change(CONSTANT, (0, 60), joint_steps=50)


def test_other_fields_are_still_refused(change):
    line = change(CONSTANT, (0, 100), joint_steps=200, lmbda=0.1)
    assert "differs in lmbda)" in line


def test_the_same_folder_is_the_same_and_another_is_not(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds" / "r").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    there = dataclasses.replace(CONSTANT, train_images="ds/r")
    folder.prepare(str(tmp_path / "run"), there)
    for spec in ("ds/r/", "./ds/r", str(tmp_path / "ds" / "r")):
        folder.prepare(str(tmp_path / "run"), dataclasses.replace(there, train_images=spec))
    with pytest.raises(ValueError, match=r"differs in train_images\)"):
        folder.prepare(str(tmp_path / "run"), dataclasses.replace(there, train_images="other"))
    white = dataclasses.replace(there, background="white")
    folder.prepare(str(tmp_path / "white"), white)
    for colour in ("#ffffff", "255,255,255", "White"):
        folder.prepare(str(tmp_path / "white"), dataclasses.replace(white, background=colour))
    with pytest.raises(ValueError, match=r"differs in background\)"):
        folder.prepare(str(tmp_path / "white"), dataclasses.replace(white, background="black"))


def test_changed_pictures_are_named_once(tmp_path):
    run = str(tmp_path)
    assert folder.note_pictures(run, {"a.png": [1, 1], "b.png": [2, 2], "c.png": [3, 3]}) == ""
    now = {"a.png": [1, 1], "b.png": [2, 5], "d.png": [1, 1], "e.png": [1, 1]}
    assert folder.note_pictures(run, {"c.png": [3, 3], "b.png": [2, 2], "a.png": [1, 1]}) == ""
    line = folder.note_pictures(run, now)
    expected = "2 added (d.png, ...), 1 gone (c.png), 1 changed (b.png)"
    assert line == f"the training pictures differ from those of the run so far: {expected}"
    assert folder.note_pictures(run, now) == ""
    assert json.loads((tmp_path / folder.PICTURES).read_text()) == {"pictures": now}


def test_generated_pictures_leave_no_file(tmp_path):
    assert folder.note_pictures(str(tmp_path), {}) == "" and not list(tmp_path.iterdir())


def test_a_line_says_where_a_run_stands():
    assert resuming.where_it_stands("runs/a", 150, "runs/a/checkpoints/ckpt-40") == (
        "runs/a is at step 40 of 150; run the same command again to resume"
    )
    line = resuming.where_it_stands("runs/a", 150, None)
    assert line == "runs/a has no checkpoint yet; run the same command to start it again"
