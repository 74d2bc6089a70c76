"""`train.py`: from flags to an experiment. `tests/training` tests the runs."""

import dataclasses
import json
import re
from pathlib import Path

import PIL.Image
import pytest
from absl import app, flags
from absl.testing import flagsaver

from tfquant import models, stack
from tfquant.commands import experiment_flags, train
from tfquant.quantization.plans import PLANS
from tfquant.training import folder, run
from tfquant.training.experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.flags"))


def parsed(*arguments):
    """Returns the flags of `python train.py ...`; a later call starts from the defaults."""
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train.py", *arguments])
    return flags.FLAGS


@pytest.fixture(autouse=True)
def keep_flags(training_flags):
    with flagsaver.flagsaver():
        yield


def experiment(*arguments):
    return experiment_flags.experiment(parsed("--model_dir=unused", *arguments))


def test_without_flags_it_is_the_default_experiment_at_the_papers_widths():
    assert experiment() == Experiment(codec_options={"N": 128, "M": 192})


def test_every_codec_has_widths_of_its_own():
    """Compares with the codec's paper; Cheng's M equals N."""
    sizes = {name: experiment(f"--codec={name}").codec_options for name in models.CODECS}
    assert set(sizes) == set(models.CODECS)
    assert sizes["ms_context"] == {"N": 192, "M": 192}
    assert sizes["cheng_attn"] == {"N": 128, "M": 128}
    assert sizes["charm_zero"] == sizes["elic_zero"] == {"N": 192, "M": 320}
    assert experiment("--codec=cheng_attn", "--N=48").codec_options == {"N": 48, "M": 48}
    assert experiment("--codec=charm", "--M=80").codec_options == {"N": 192, "M": 80}


def test_every_field_of_an_experiment_has_a_documented_flag_and_its_default():
    values = parsed("--model_dir=unused")
    default = Experiment()
    for field in dataclasses.fields(Experiment):
        if field.name == "codec_options":
            continue
        assert len(values[field.name].help) > 10, field.name
        value = getattr(values, field.name)
        expected = getattr(default, field.name)
        assert (tuple(value) if isinstance(value, list) else value) == expected, field.name


def test_there_is_at_least_one_slice():
    with pytest.raises(flags.IllegalFlagValueError, match="--slices=0: 0 is not a positive"):
        experiment("--slices=0")


def test_flags_reach_the_experiment():
    found = experiment(
        "--codec=ms_hyper", "--N=8", "--M=12", "--family=mixture", "--g_s=res", "--plan=mix",
        "--rate_branch=sua:expected", "--stop_gradient=none", "--stages=joint",
        "--downscale=0.6,0.95", "--joint_steps=30", "--lmbda=0.013", "--precision=bfloat16",
    )  # fmt: skip
    assert found == Experiment(
        codec="ms_hyper",
        codec_options={"N": 8, "M": 12, "family": "mixture", "g_s": "res"},
        plan="mix",
        rate_branch="sua:expected",
        stop_gradient="none",
        stages=("joint",),
        downscale=(0.6, 0.95),
        joint_steps=30,
        lmbda=0.013,
        precision="bfloat16",
    )


@pytest.mark.parametrize(
    "flag,choice",
    [("codec", "ms_hyper_zero"), ("plan", "sua_pge"), ("distortion", "ms_ssim"),
     ("joint_schedule", "paper_joint"), ("start", r"klt\|glorot"),
     ("stop_gradient", r"both\|distortion\|none"),
     ("mean_gradient", r"sampled\|expected"), ("precision", "bfloat16"), ("progress", "line"),
     ("family", r"gaussian\|laplacian\|mixture"), ("g_a", r"plain\|res\|res_attn"),
     ("g_s", r"plain\|res\|res_attn")],
)  # fmt: skip
def test_an_unknown_value_lists_the_choices(flag, choice):
    with pytest.raises(flags.IllegalFlagValueError, match=f"--{flag}=nonsense.*{choice}"):
        experiment(f"--{flag}=nonsense")


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_is_a_flag(plan):
    assert experiment(f"--plan={plan}").joint_plan() == PLANS[plan]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_an_experiment_of_whole_epochs(path):
    values = parsed("--model_dir=unused", f"--flagfile={path}")
    found = experiment_flags.experiment(values)
    for stage in found.all_stages():
        run.epoch_length(stage, values.epoch_steps)
    head = path.read_text().splitlines()[:12]
    for what in ("# What:", "# Run:", "# Takes:", "# Expect:"):
        assert any(line.startswith(what) for line in head), what


def included(path):
    """Returns the lines of a flagfile and of those that it includes."""
    for line in path.read_text().splitlines():
        yield line
        if line.startswith("--flagfile="):
            yield from included(path.parent.parent / line.partition("=")[2])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_with_annealing_says_which_temperature_and_why(path):
    found = experiment(f"--flagfile={path}")
    annealed = any(stage.plan.annealed for stage in found.all_stages())
    lines = list(included(path))
    assert (f"--alpha_max={found.alpha_max:g}" in lines) == annealed
    said = any(line.startswith(f"# Alpha:  {found.alpha_max:g}, ") for line in lines)
    assert said == annealed


def test_the_flags_that_remove_deviations_from_the_paper_exist_and_change_the_experiment():
    page = (CONFIGS[0].parent.parent / "docs" / "paper_deviations.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("|")]
    named = [flag for line in table for flag in re.findall(r"`(--\w+(?:=[\w:]+)?)`", line)]
    assert len(named) >= 6
    recipe = f"--flagfile={next(path for path in CONFIGS if path.stem == 'paper_ms_hyper_zero')}"
    for flag in named:
        if flag in ("--alpha_max", "--seed"):  # that take a number
            flag += "=4"
        assert experiment(recipe, flag) != experiment(recipe), flag


def test_the_papers_configuration_is_the_papers_recipe():
    """Compares with section 6.1.2: batches of 8, crops of 256; 450 and 100 epochs of 20,000
    pictures.
    """
    path = next(path for path in CONFIGS if path.stem == "paper_ms_hyper_zero")
    found = experiment(f"--flagfile={path}")
    joint, post = found.all_stages()
    epoch = 20_000 // 8
    assert (found.batch_size, found.crop) == (8, 256)
    assert (joint.steps, post.steps) == (450 * epoch, 100 * epoch)
    assert joint.plan == PLANS["sua_ste"]
    assert found.clip_norm == 0
    rates = [(joint, 400), (joint, 401), (joint, 426), (post, 50), (post, 51), (post, 76)]
    expected = [1e-4, 1e-5, 1e-6, 1e-4, 1e-5, 1e-6]
    found = [float(stage.learning_rate(epochs * epoch)) for stage, epochs in rates]
    assert found == pytest.approx(expected)
    assert float(joint.alpha(400 * epoch)) == float(joint.alpha(450 * epoch)) == 12.0


def refusal(*arguments):
    """Returns the last message of `python train.py ...`."""
    parsed(*arguments)
    with pytest.raises(SystemExit) as end:
        train.main(["train.py"])
    return end.value.code


@pytest.fixture(name="pictures")
def _pictures(tmp_path, make_photograph):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        PIL.Image.fromarray(make_photograph(64, 64, seed)).save(folder / f"{seed}.png")
    return folder


def test_another_runs_folder_is_refused_in_one_line_with_the_differences(tmp_path, pictures):
    there = tmp_path / "run"
    small = ["--N=4", "--M=6", "--crop=64", "--batch_size=2", f"--train_images={pictures}"]
    folder.prepare(str(there), experiment(*small))
    kept = (there / "experiment.json").read_text()
    message = refusal(f"--model_dir={there}", *small, "--lmbda=0.1", "--plan=mix")
    assert message.startswith(f"train.py: {there} contains another experiment")
    assert "(differs in lmbda, plan)" in message and "\n" not in message
    assert [path.name for path in there.iterdir()] == ["experiment.json"]
    assert (there / "experiment.json").read_text() == kept
    assert json.loads(kept)["experiment"]["lmbda"] == 0.0067


@pytest.mark.parametrize(
    "flag,message",
    [
        ("--stages=joint,qr", "train.py: unknown stage 'qr'; known: joint, post"),
        ("--rate_branch=round:expected", "train.py: surrogate 'round' has no 'expected' gradient"),
        ("--downscale=0.5", "train.py: downscale takes two factors"),
        ("--downscale=small,large", "train.py: --downscale takes two numbers; got 'small,large'"),
        ("--stages=", "train.py: nothing to train: no stage"),
        ("--quality_levels=101", "train.py: quality_levels must be at most 100; got 101"),
        ("--seed=99999999999999999999", "train.py: seed must be below 4294967296; got 9999"),
        ("--model_dir=", "train.py: --model_dir must name a folder; got ''"),
        ("--epoch_steps=3000", "train.py: stage 'joint' has 10000 steps, which is not a multiple"),
    ],
)
def test_a_wrong_flag_ends_in_one_line_before_the_folder_is_made(tmp_path, pictures, flag, message):
    small = ["--N=4", "--M=6", "--crop=64", f"--train_images={pictures}"]
    found = refusal(f"--model_dir={tmp_path / 'run'}", *small, flag)
    assert found.startswith(message) and "\n" not in found
    assert not (tmp_path / "run").exists()


def warnings(caplog, *arguments):
    values = parsed("--model_dir=unused", *arguments)
    caplog.clear()
    found = experiment_flags.experiment(values)
    train.warn_of_flags(found, values)
    train.warn_of_validation(found)
    return [record.getMessage() for record in caplog.records]


def test_a_temperature_without_effect_gives_a_warning(caplog):
    (line,) = warnings(caplog, "--plan=mix", "--alpha_max=8", "--alpha_min=2")
    assert line == (
        "--alpha_min, --alpha_max: no effect, no branch of the plan is annealed"
        " (aun:pathwise, round:straight_through)"
    )
    assert len(warnings(caplog, "--stages=post", "--init_from=run", "--alpha_max=8")) == 1
    assert not warnings(caplog, "--plan=mix")
    assert not warnings(caplog, "--plan=sua_ste", "--alpha_max=8")
    assert not warnings(caplog, "--plan=mix", "--alpha_max=8", "--distortion_branch=sha:standard")


@pytest.mark.parametrize(
    "flags,line",
    [
        (["--quality_levels=3"], "--quality_levels: no effect, only --lmbda_range uses it"),
        (
            ["--codec=ms_hyper", "--stop_gradient=none"],
            "--stop_gradient: no effect, ms_hyper does not have zero-center quantization",
        ),
        (
            ["--codec=factorized", "--hyper_aun"],
            "--hyper_aun: no effect, factorized does not have a hyper-latent",
        ),
        (
            ["--background=white"],
            "--background: no effect, the training pictures have no transparent pixels",
        ),
    ],
)
def test_a_setting_without_effect_gives_a_warning(caplog, flags, line):
    assert warnings(caplog, *flags) == [line]


def test_flags_of_the_rectifier_without_effect_give_a_warning(caplog):
    start = ("--init_from=run", "--stages=qr_predictive")
    (line,) = warnings(caplog, "--qr_distance=l1", "--rectifier_depth=3")
    assert line == (
        "--rectifier_depth, --qr_distance: no effect, no stage qr_soft or qr_predictive is trained"
    )
    (line,) = warnings(caplog, *start, "--explore_start=1", "--explore_patience=2")
    assert line.startswith("--explore_patience, --explore_start: no effect, only --explore_qr")
    (line,) = warnings(caplog, *start, "--qr_stop_gradient")
    assert line == "--qr_stop_gradient: no effect, no stage qr_soft is trained"
    (line,) = warnings(caplog, *start, "--rectifier_width=0", "--qr_distance=l1")
    assert line == "--qr_distance: no effect, --rectifier_width is 0"
    assert not warnings(caplog, *start, "--explore_qr", "--qr_distance=l1", "--explore_start=1")


def test_a_start_without_effect_gives_a_warning(caplog):
    (line,) = warnings(caplog, "--start=glorot", "--init_from=run", "--stages=post")
    assert line == "--start: no effect, the weights come from --init_from"
    assert not warnings(caplog, "--start=glorot")


@pytest.mark.parametrize(
    ("extensions", "precision", "warned"),
    [
        (["AVX2"], "bfloat16", True),
        (["AVX2", "AVX512"], "float16", True),
        (["AVX2"], "float32", False),
        (["AVX2", "AVX512", "AVX512 bfloat16"], "bfloat16", False),
        (["AVX2", "AVX512", "AMX"], "bfloat16", False),
        ([], "bfloat16", False),  # the system does not say
    ],
)
def test_a_precision_that_the_processor_lacks_gives_a_warning(
    caplog, monkeypatch, extensions, precision, warned
):
    monkeypatch.setattr(stack, "processor_extensions", lambda: extensions)
    train.warn_of_precision(Experiment(precision=precision))
    message = (
        f"--precision={precision}: this processor has no instructions for it; steps take several"
        " times as long as with --precision=float32"
    )
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ([message] if warned else [])


def test_a_rounded_number_of_validation_pictures_is_logged(caplog):
    (line,) = warnings(caplog, "--validation_images=20", "--batch_size=8")
    assert line.endswith("validation needs whole batches of 8, so it uses 16 pictures")
    assert "uses 8 pictures" in warnings(caplog, "--validation_images=1", "--batch_size=8")[0]
    assert not warnings(caplog, "--validation_images=24", "--batch_size=8")


def test_positional_arguments_are_rejected():
    parsed("--model_dir=unused")
    with pytest.raises(app.UsageError, match="unexpected arguments: lmbda=3; use only --flags"):
        train.main(["train.py", "lmbda=3"])


@pytest.mark.parametrize("images", ["", "few"])
def test_the_searchs_flags_reach_it_and_each_weights_training(tmp_path, monkeypatch, images):
    """Checks that its pictures are those of --explore_images, or else --train_images."""
    searched, trained = {}, []

    def run_search(directory, search, experiment, **options):
        searched.update(directory=directory, search=search, experiment=experiment, **options)
        options["train"](experiment, "a weight's run")

    monkeypatch.setattr(train.exploration, "run_search", run_search)
    monkeypatch.setattr(train, "train_stages", lambda *arguments: trained.append(arguments) or [])
    arguments = [
        f"--model_dir={tmp_path}", "--init_from=baseline", "--stages=qr_predictive",
        "--train_images=many",
    ]  # fmt: skip
    parsed(
        *arguments, "--explore_qr", f"--explore_images={images}", "--explore_start=3",
        "--explore_factor=0.5", "--explore_minimum=0.2", "--explore_rises=2",
        "--explore_warm_start", "--explore_patience=4", "--epoch_steps=500",
    )  # fmt: skip
    train.main(["train.py"])
    search = train.exploration.Search(start=3.0, factor=0.5, minimum=0.2, rises=2)
    assert (searched["directory"], searched["search"]) == (str(tmp_path), search)
    assert (searched["patience"], searched["epoch_steps"]) == (4, 500)
    assert searched["warm_start"] is True
    asked = searched["experiment"]
    assert asked.train_images == (images or "many")
    assert dataclasses.replace(asked, train_images="many") == experiment(*arguments)
    ((one, run_dir, given, _, patience),) = trained
    assert (one, run_dir, patience) == (asked, "a weight's run", 4)
    assert given == train.Settings(epoch_steps=500)
