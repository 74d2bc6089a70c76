"""Functions that give the same float32 on every machine and with every version of TensorFlow.

They consist of additions, multiplications and integer operations, each of which is a separate
TensorFlow operation. IEEE 754 defines the result of each. TensorFlow's `exp` is not used, because
its last bits depend on the version and the machine.

Some operations are avoided, because TensorFlow's optimizer replaces them by less exact ones: `1 /
x`, division by a constant, division by a root, and two successive additions of constants.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_LOG2_E = np.float32(1.0 / np.log(2.0))
# Coefficients of 2**f on -1/2 <= f <= 1/2, from f**5 down to f**0. They minimize the largest
# relative error, 9e-8, and give exactly 1 at 0. They solve a linear program like that of
# `masses._TAIL`.
_EXP2 = np.array([0.00132546027, 0.00967199914, 0.055507794, 0.24022232, 0.693146944, 1.0], "f4")
_LEAST, _MOST = -126.0, 127.0


def exp(x: tf.Tensor) -> tf.Tensor:
    """Returns `e**x`, [...] float32, limited to 2**-126 ... 2**127.

    The relative error is below 1e-5 for |x| < 80.
    """
    x = tf.clip_by_value(x * _LOG2_E, _LEAST, _MOST)
    whole = tf.round(x)
    fraction = x - whole
    mantissa = _EXP2[0] * fraction
    for coefficient in _EXP2[1:-1]:
        mantissa = (mantissa + coefficient) * fraction
    mantissa += _EXP2[-1]
    power = tf.bitwise.left_shift(tf.cast(whole, tf.int32) + 127, 23)
    return mantissa * tf.bitcast(power, tf.float32)
