"""Learned image compression with any quantization surrogate, from training to bits.

Importing this package stays cheap: it must not import TensorFlow, so that `tfquant info` answers at
once. Import what you need from the modules: `from tfquant import codec`, `from tfquant.ops import
rounding`.
"""

__version__ = "0.1.0"
