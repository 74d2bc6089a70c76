"""Reach of networks: the distance of the farthest inputs that affect an output."""

from __future__ import annotations

from tfquant.layers.blocks import (
    Attention,
    ResidualBlock,
    ResidualDown,
    ResidualUnit,
    ResidualUp,
    SubpixelConv,
)
from tfquant.layers.chain import Chain
from tfquant.layers.gdn import GDN
from tfquant.legacy_keras import keras

_ELEMENTWISE = (GDN, keras.layers.Activation, keras.layers.Rescaling)


def reach(layer: keras.layers.Layer, scale: float) -> tuple[float, float]:
    """Returns an upper limit of a layer's reach.

    Args:
      layer: a built layer of a kind that transforms contain.
      scale: distance between neighbouring elements of its input, in pixels.

    Returns:
      The distance in pixels from an output to the farthest input on which it depends, beyond the
      pixels that the output represents; and `scale` of the output.

    Raises:
      TypeError: the layer is of a kind whose reach is unknown here, such as a user's own.
    """
    if isinstance(layer, (Chain, keras.Sequential)):
        distance = 0.0
        for part in layer.layers:
            further, scale = reach(part, scale)
            distance += further
        return distance, scale
    if isinstance(layer, keras.layers.Conv2DTranspose):
        # With an odd kernel, an output depends on half of it on each side, in steps of the stride.
        (side, _), (stride, _) = layer.kernel_size, layer.strides
        return scale * -(-(side // 2) // stride), scale / stride
    if isinstance(layer, keras.layers.Conv2D):
        return scale * (layer.kernel_size[0] // 2), scale * layer.strides[0]
    if isinstance(layer, SubpixelConv):
        distance, scale = reach(layer.conv, scale)
        return distance, scale / layer.stride
    if isinstance(layer, (ResidualBlock, ResidualDown, ResidualUnit, ResidualUp)):
        distance, after = reach(layer.main, scale)
        skip = getattr(layer, "skip", None)
        # The strided slice before ResidualDown's projection reaches no further than the block.
        return max(distance, 0.0 if skip is None else reach(skip, scale)[0]), after
    if isinstance(layer, Attention):
        return max(reach(layer.trunk, scale)[0], reach(layer.mask, scale)[0]), scale
    if isinstance(layer, _ELEMENTWISE):
        return 0.0, scale
    raise TypeError(f"the reach of {type(layer).__name__} is unknown")
