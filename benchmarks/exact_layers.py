"""Measures the cost of exact sums: processor time and bytes, compared with real arithmetic.

    python benchmarks/exact_layers.py --codecs=ms_hyper_zero,ms_context,charm_zero,elic_zero
    python benchmarks/exact_layers.py --weights=FOLDER --images=PICTURES

Codecs have random weights and latents with a standard deviation of 3. FOLDER has pairs of files of
trained weights, as for `make_pretrained.py`. Each codec becomes exact as in an export, and its copy
stays real, as for files of version 1. Both compress and decompress one 768x512 picture in turns.
*Encode* and *decode* are ratios of the median processor times of the process, which depend less on
other load than seconds. *Bytes* is the ratio of the sizes of the files: of that picture, or of
those in PICTURES.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import measuring
import numpy as np
import tensorflow as tf

from tfquant import exact, models
from tfquant.data import finding, images
from tfquant.export.codec_module import CodecModule
from tfquant.training import trained
from tfquant.training.experiment import Experiment


def random_pair(name: str) -> tuple:
    """Returns a codec with random weights and a copy."""
    pair = [models.build(name, **models.widths(name)) for _ in range(2)]
    measuring.spread_latents(pair[0], measuring.picture())
    pair[1].set_weights(pair[0].get_weights())
    return tuple(pair)


def trained_pair(source: Path) -> tuple:
    """Returns a codec with the weights beside the experiment `source`, and a copy."""
    experiment = Experiment.from_json(source.read_text())
    pair = [trained.build_as_decoded(experiment, "float32") for _ in range(2)]
    with np.load(source.with_suffix(".npz")) as arrays:
        for codec in pair:
            for variable, name in zip(codec.variables, arrays.files):
                variable.assign(arrays[name].astype(np.float32))
    return tuple(pair)


def compare(pair: tuple, pictures: list, rounds: int) -> tuple:
    """Returns the ratios of encoding, decoding and bytes, exact by real.

    Args:
      pair: two equal codecs; the second one becomes exact.
      pictures: uint8 [H, W, 3] each, of whose files the sizes are compared.
      rounds: number of measured calls.
    """
    exact.become_exact(pair[1])
    modules = [CodecModule(codec) for codec in pair]
    picture = measuring.picture()
    height, width, _ = picture.shape
    files = []
    for module in modules:
        coded = module.encode(picture)
        files.append((coded["streams"], height, width, coded["symbols_crc"]))
        module.decode(*files[-1])
    seconds = {"encode": ([], []), "decode": ([], [])}
    for _ in range(rounds):
        for side, (module, file) in enumerate(zip(modules, files)):
            seconds["encode"][side].append(_processor(lambda m=module: m.encode(picture)["bits"]))
            seconds["decode"][side].append(
                _processor(lambda m=module, f=file: m.decode(*f)["image"])
            )
    sizes = [
        sum(sum(map(len, module.encode(tf.constant(p))["streams"].numpy())) for p in pictures)
        for module in modules
    ]
    ratios = (
        statistics.median(b) / statistics.median(a)
        for a, b in (seconds["encode"], seconds["decode"])
    )
    return *ratios, sizes[1] / sizes[0]


def _processor(run) -> float:
    start = time.process_time()
    run().numpy()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", default="ms_hyper_zero,ms_context,charm_zero,elic_zero")
    parser.add_argument("--weights", help="folder of trained weights, in place of --codecs")
    parser.add_argument("--images", help="folder of the pictures whose files are compared")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    pictures = [measuring.picture().numpy()]
    if arguments.images:
        pictures = [images.read_image(p) for p in sorted(finding.search(arguments.images).paths)]
    print("| codec | encode | decode | bytes |\n|---|---:|---:|---:|", flush=True)
    if arguments.weights:
        sources = sorted(Path(arguments.weights).glob("*.json"))
        pairs = ((source.stem, trained_pair(source)) for source in sources)
    else:
        pairs = ((name, random_pair(name)) for name in arguments.codecs.split(","))
    for name, pair in pairs:
        encode, decode, size = compare(pair, pictures, arguments.rounds)
        print(f"| `{name}` | {encode:.3f} | {decode:.3f} | {size:.5f} |", flush=True)


if __name__ == "__main__":
    main()
