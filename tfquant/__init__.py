"""Learned image compression with any quantization surrogate, from training to bits.

    import tfquant as tq

    codec = tq.models.build("ms_hyper_zero", N=64, M=96)
    x_hat = codec(x)
    tq.train(tq.Experiment(codec="ms_hyper_zero", train_images="photographs/"), "runs/mine")
    model = tq.load("runs/mine/export")
    data = model.compress(picture)

Importing this package is cheap. Each name below is imported when it is first used, because
TensorFlow takes seconds to import and `tfquant info` should answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # type checkers and editors do not run __getattr__
    # `models` is a folder of its own in a checkout.
    from tfquant import metrics, models  # type: ignore[attr-defined]
    from tfquant.codec import Codec
    from tfquant.commands.train import train
    from tfquant.entropy.conditional import ConditionalModel
    from tfquant.entropy.factorized import FactorizedModel
    from tfquant.exchange import Exchange, Rounding, Surrogates
    from tfquant.export.loading import load
    from tfquant.export.model_file import ExportedModel
    from tfquant.export.writing import export_codec, export_run
    from tfquant.quantization.layer import Quantizer
    from tfquant.quantization.plans import PLANS, QuantizationPlan
    from tfquant.quantization.surrogates import SURROGATES, Branch, Surrogate
    from tfquant.training.experiment import Experiment, Stage
    from tfquant.training.trained import load_run

# Maps each public name to the module that defines it. The names in _MODULES are modules themselves.
_PUBLIC = {
    "Branch": "tfquant.quantization.surrogates",
    "Codec": "tfquant.codec",
    "ConditionalModel": "tfquant.entropy.conditional",
    "Exchange": "tfquant.exchange",
    "Experiment": "tfquant.training.experiment",
    "ExportedModel": "tfquant.export.model_file",
    "FactorizedModel": "tfquant.entropy.factorized",
    "PLANS": "tfquant.quantization.plans",
    "QuantizationPlan": "tfquant.quantization.plans",
    "Quantizer": "tfquant.quantization.layer",
    "Rounding": "tfquant.exchange",
    "SURROGATES": "tfquant.quantization.surrogates",
    "Stage": "tfquant.training.experiment",
    "Surrogate": "tfquant.quantization.surrogates",
    "Surrogates": "tfquant.exchange",
    "export_codec": "tfquant.export.writing",
    "export_run": "tfquant.export.writing",
    "load": "tfquant.export.loading",
    "load_run": "tfquant.training.trained",
    "metrics": "tfquant.metrics",
    "models": "tfquant.models",
    "train": "tfquant.commands.train",
}
_MODULES = ("metrics", "models")

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfquant' has no attribute {name!r}")
    from tfquant import stack

    stack.import_tensorflow()
    module = importlib.import_module(_PUBLIC[name])
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the names of the package, including those that are not imported yet."""
    return sorted({*globals(), *__all__})
