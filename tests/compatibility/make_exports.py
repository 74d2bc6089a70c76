"""Writes the exported models and files that `test_exports.py` reads on every stack.

    python tests/compatibility/make_exports.py STACK

This writes `exports/STACK-CODEC.tar.xz` for four codecs: each kind of coding table, and each order
of the elements. STACK is `exact` for models that write files of version 2. Older archives have
three codecs. Each archive contains an exported model without its stock flavour, a picture, the
picture's `.tfq` file, and the decoded picture. Run it once per stack, and again only when a new
format changes the files: the archives represent models and files that users already have.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from tfquant import models
from tfquant.export.model_file import ExportedModel
from tfquant.export.writing import export_codec
from tfquant.training.experiment import Experiment

FOLDER = Path(__file__).parent / "exports"
CODECS = {
    "ms_hyper_zero": {"N": 8, "M": 12},
    "charm": {"N": 8, "M": 12, "slices": 3},
    "cheng_anchor": {"N": 8},
    "elic_sm_zero": {"N": 8, "M": 12},
}
HEIGHT, WIDTH = 64, 96
_GAINS = {"h_a": 4.0}  # hyper-latents of an untrained codec all round to 0


def picture() -> np.ndarray:
    """Returns smooth noise in three channels, [HEIGHT, WIDTH, 3] uint8."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def stir(codec) -> None:
    """Sets the entropy model to a wide range of means and scales, as after training.

    The values come from NumPy, because TensorFlow's initial weights may differ between versions.
    """
    rng = np.random.default_rng(0)
    networks = {**codec.group("entropy"), "h_a": codec.h_a}
    for name, network in sorted(networks.items()):
        if network in codec.entropy_models:
            continue
        for weight in network.trainable_weights:
            fan_in = weight.shape[:-1].num_elements() or 4
            spread = _GAINS.get(name, 1.0) / np.sqrt(fan_in)
            weight.assign(rng.normal(0.0, spread, weight.shape))


def make(stack: str, name: str, folder: Path) -> None:
    """Writes the archive of one codec, from files made in `folder`."""
    codec = models.build(name, **CODECS[name])
    stir(codec)
    experiment = Experiment(codec=name, codec_options=CODECS[name])
    export_codec(codec, experiment, str(folder / "export"))
    shutil.rmtree(folder / "export" / "stock")
    model = ExportedModel.load(str(folder / "export"))
    data = model.compress(picture())
    (folder / "picture.tfq").write_bytes(data)
    Image.fromarray(picture()).save(folder / "picture.png")
    Image.fromarray(model.decompress(data)).save(folder / "decoded.png")
    evaluated = model.evaluate(picture())
    np.savez(folder / "latents.npz", y=evaluated["y"], y_hat=evaluated["y_hat"])
    shutil.make_archive(str(FOLDER / f"{stack}-{name}"), "xztar", folder)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for codec_name in CODECS:
        with tempfile.TemporaryDirectory() as made:
            make(sys.argv[1], codec_name, Path(made))
