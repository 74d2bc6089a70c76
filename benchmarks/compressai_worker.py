"""The same operations in CompressAI, with another Python. `bench.py` starts it, see `piped.py`.

CompressAI runs under its best conditions: channels last, in float32 and bfloat16 (for a picture,
only the transforms are in bfloat16, as in ours); a C library's allocator that keeps its memory (set
by `bench.py`); one thread per core; and the functions of its own training and coding. Its
`compress` starts from floats, ours from bytes. The latents of untrained weights get the same
standard deviation as ours. Their scales are set to match, because they would otherwise be far
outside the coder's tables.
"""

from __future__ import annotations

import os

import conditions
import piped
import torch

# CompressAI imports torchvision but needs none of its compiled operators here. They may be missing,
# for example if torchvision was built for another PyTorch.
_register_fake = torch.library.register_fake


def _tolerant(name, *args, **kwargs):
    if str(name).startswith("torchvision::"):
        return lambda function: function
    return _register_fake(name, *args, **kwargs)


torch.library.register_fake = _tolerant

import compressai  # noqa: E402
from compressai import models  # noqa: E402


def _first_half(layer: torch.nn.Conv2d) -> torch.Tensor:
    """Returns the biases of the scales, in a layer that predicts scales and then means."""
    return layer.bias[: layer.out_channels // 2]


# Our codec -> (CompressAI's model as a function of N and M, the biases of its predicted scales).
COUNTERPARTS = {
    "factorized": (lambda N, M: models.FactorizedPrior(N, M), lambda m: []),
    "scale_hyperprior": (lambda N, M: models.ScaleHyperprior(N, M), lambda m: [m.h_s[-2].bias]),
    "ms_hyper": (
        lambda N, M: models.MeanScaleHyperprior(N, M),
        lambda m: [_first_half(m.h_s[-1])],
    ),
    "ms_hyper_zero": (
        lambda N, M: models.MeanScaleHyperprior(N, M),
        lambda m: [_first_half(m.h_s[-1])],
    ),
    "ms_context": (
        lambda N, M: models.JointAutoregressiveHierarchicalPriors(N, M),
        lambda m: [_first_half(m.entropy_parameters[-1])],
    ),
    "cheng_anchor": (
        lambda N, M: models.Cheng2020Anchor(N),
        lambda m: [_first_half(m.entropy_parameters[-1])],
    ),
    "cheng_attn": (
        lambda N, M: models.Cheng2020Attention(N),
        lambda m: [_first_half(m.entropy_parameters[-1])],
    ),
    "elic_zero": (
        lambda N, M: models.sensetime.Elic2022Official(N, M),
        lambda m: [
            _first_half(group.entropy_parameters[-1])
            for group in m.latent_codec["y"].latent_codec.values()
        ],
    ),
}


def step(settings: dict):
    """Runs a training step: forward, rate and distortion, backward, clipping, Adam."""
    model = _build(settings).train()
    parameters = [p for n, p in model.named_parameters() if not n.endswith("quantiles")]
    optimizer = torch.optim.Adam(parameters, 1e-4)
    batch_size, crop = settings["batch_size"], settings["crop"]
    x = torch.rand(batch_size, 3, crop, crop).to(memory_format=torch.channels_last)
    reduced = settings["precision"] == "bfloat16"

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            out = model(x)
        pixels = batch_size * crop * crop
        bpp = sum(-torch.log2(p.float()).sum() for p in out["likelihoods"].values()) / pixels
        loss = bpp + 0.01 * 255**2 * (x - out["x_hat"].float()).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return run


def compress(settings: dict):
    """Compresses a picture to strings."""
    model, x = _coding(settings)

    def run():
        with torch.no_grad():
            return model.compress(x)

    return run


def decompress(settings: dict):
    """Decompresses strings to the picture."""
    model, x = _coding(settings)
    with torch.no_grad():
        coded = model.compress(x)

    def run():
        with torch.no_grad():
            return model.decompress(coded["strings"], coded["shape"])

    return run


def _build(settings: dict):
    torch.manual_seed(0)
    build, _ = COUNTERPARTS[settings["codec"]]
    return build(**settings["widths"]).to(memory_format=torch.channels_last)


def _coding(settings: dict) -> tuple:
    """Returns a model with spread latents, and a picture: [1, 3, H, W] float."""
    model = _build(settings).eval()
    shape = conditions.PICTURE
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 64, 96), shape, mode="bicubic")
    x = x.clamp(0, 1).to(memory_format=torch.channels_last)
    _, biases = COUNTERPARTS[settings["codec"]]
    last = [layer for layer in model.g_a if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        for _ in range(3):  # repeated, because the following attention is not linear
            gain = conditions.DEVIATION / model.g_a(x).std()
            for parameter in last.parameters():
                parameter *= gain
        for bias in biases(model):
            bias[:] = conditions.DEVIATION
    model.update(force=True)
    if settings["precision"] == "bfloat16":
        for network in (model.g_a, model.g_s):
            network.forward = _in_bfloat16(network.forward)
    return model, x


def _in_bfloat16(forward):
    def autocast(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(x).float()

    return autocast


TASKS = {"step": step, "compress": compress, "decompress": decompress}


def prepare(settings: dict) -> tuple:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    version = f"CompressAI {compressai.__version__}, PyTorch {torch.__version__}"
    if settings["what"] not in TASKS or settings["codec"] not in COUNTERPARTS:
        return {}, {"version": version, "able": False}
    run = TASKS[settings["what"]](settings)
    run()
    return {"run": run}, {"version": version, "able": True}


if __name__ == "__main__":
    piped.serve(prepare)
