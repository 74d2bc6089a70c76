"""From symbols to bytes and back: integer tables, range coding, checksums, the `.tfq` container.

    probabilities -> tables.py -> integer rows -+
                                                v
    symbols ------------------------> range_coder.py -> streams -> container.py -> .tfq file

Importing this package, `container` or `tfquant.cli` imports neither TensorFlow nor NumPy.
"""
