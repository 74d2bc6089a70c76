"""Makes the sets of models that tfquant brings along, from trained weights.

    python benchmarks/make_pretrained.py --weights=FOLDER --images=KODAK \
        --out=tfquant/pretrained/photographs

FOLDER has a pair of files for each model: NAME.json, the experiment as `experiment.json` of a run
has it, and NAME.npz, an array for each variable in the order of the codec's variables. The
measurements are of real files, means over the pictures of `--images`. A set that is there is
replaced; `--measure=false` keeps its measurements.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from absl import app, flags

from tfquant import stack

_WEIGHTS = flags.DEFINE_string("weights", None, "Folder of the trained weights.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the Kodak pictures.")
_OUT = flags.DEFINE_string("out", None, "The set's folder.", required=True)
_STEP = flags.DEFINE_float("step", 1 / 128, "Step of the weights, in units of a channel's RMS.")
_MEASURE = flags.DEFINE_bool("measure", True, "Measure again.")

_DESCRIPTION = "photographs, lowest squared error"
_TRAINING = (
    "{steps} joint and {post} post steps on one GPU: 332 photographs, batches of 8 crops of"
    " 256x256, plan sua_ste"
)


def main(argv) -> None:
    del argv
    stack.import_tensorflow()
    import numpy as np

    from tfquant.export import model_set, packed
    from tfquant.training import trained
    from tfquant.training.experiment import Experiment

    sources = sorted(Path(_WEIGHTS.value).glob("*.json"))
    before = _measured(_OUT.value)
    made, steps = [], []
    for source in sources:
        experiment = Experiment.from_json(source.read_text())
        codec = trained.build_as_decoded(experiment, "float32")
        with np.load(source.with_suffix(".npz")) as arrays:
            for variable, name in zip(codec.variables, arrays.files):
                variable.assign(arrays[name].astype(np.float32))
        folder = _name(experiment)
        with tempfile.TemporaryDirectory() as temporary:
            single = os.path.join(temporary, folder)
            packed.pack_codec(codec, experiment, single, _STEP.value)
            manifest = packed.widen(single, os.path.join(_OUT.value, folder))
        steps.append(experiment.joint_steps)
        rows = before.get(folder, [])
        if _MEASURE.value:
            rows = _measure(os.path.join(_OUT.value, folder), manifest.qualities.base)
        print(folder, manifest.fingerprint, *rows, sep="\n  ", flush=True)
        made.append((folder, manifest, rows))
    ends = model_set.divided(manifest for _, manifest, _ in made)
    members = [model_set.entry(*each, ends=ends[each[1].fingerprint]) for each in made]
    training = _TRAINING.format(
        steps=" to ".join(f"{count:,}" for count in sorted({min(steps), max(steps)})),
        post=f"{experiment.post_steps:,}",
    )
    model_set.write(
        _OUT.value, os.path.basename(_OUT.value), members,
        description=_DESCRIPTION, training=training, default_quality=50,
    )  # fmt: skip


def _measured(out: str) -> dict:
    """Returns folder -> the measured rows of the set that exists."""
    path = Path(out) / "models.json"
    members = json.loads(path.read_text())["members"] if path.is_file() else []
    return {member["folder"]: member["kodak"] for member in members}


def _name(experiment) -> str:
    """Returns the name of a model's folder, from its quality."""
    from tfquant.export import quality

    return f"q{quality.of_lmbda(experiment.lmbda, experiment.distortion):.0f}"


def _measure(path: str, quality: float) -> list:
    """Returns a row of quality, mean bpp, PSNR and MS-SSIM of a model's files of the pictures."""
    from tfquant.data import finding, images
    from tfquant.evaluation import measure
    from tfquant.evaluation.results import Measurement
    from tfquant.export.model_file import ExportedModel

    model, measured = ExportedModel.load(path), []
    for source in finding.search(_IMAGES.value).paths:
        picture = images.read_image(source)
        data = model.compress(picture, quality)
        bpp = measure.bits_per_pixel(len(data), picture)
        found = measure.quality(picture, model.decompress(data))
        measured.append(Measurement(source, bpp, **found._asdict()))
    mean = measure.mean(measured)
    decimals = {"bpp": 4, "psnr": 2, "ms_ssim": 4}
    rounded = {key: round(getattr(mean, key), number) for key, number in decimals.items()}
    return [{"quality": round(quality, 1), **rounded}]


if __name__ == "__main__":
    app.run(main)
