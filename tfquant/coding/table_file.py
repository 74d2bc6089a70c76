"""Coding tables in the file `tables.npz` of an exported model.

The file contains a uint8 array for each latent: the bytes of `Table.to_bytes`. A reader uses
exactly the integers of the encoder, because another machine could compute a frequency differently.
"""

from __future__ import annotations

import io

import numpy as np

from tfquant.coding.decisions import DecisionTable
from tfquant.coding.tables import ChannelTable, MeanScaleTable, ScaleTable, Table

NAME = "tables.npz"
_CLASSES = {cls.__name__: cls for cls in (ChannelTable, ScaleTable, MeanScaleTable, DecisionTable)}


def dump(tables: dict) -> bytes:
    """Returns the content of the file for tables, latent's name -> table."""
    file = io.BytesIO()
    arrays = {name: np.frombuffer(t.to_bytes(), np.uint8) for name, t in tables.items()}
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def load(data: bytes) -> dict:
    """Returns latent's name -> table, from the file's bytes.

    Raises:
      ValueError: the bytes are corrupt or not a file of tables.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: table_from_bytes(arrays[name].tobytes()) for name in arrays.files}
    except MemoryError:
        raise
    except Exception as error:  # zip, NumPy and the tables raise different types
        raise ValueError(f"{NAME} is corrupt: {error}") from None


def table_from_bytes(data: bytes) -> Table:
    """Returns the table whose `to_bytes` gave `data`.

    Raises:
      ValueError: no table has these bytes.
    """
    name, _, rest = data.partition(b"\0")
    cls = _CLASSES.get(name.decode("latin-1"))
    if cls is None or len(rest) % 4 or not rest:
        raise ValueError(f"no coding table begins with {data[:20]!r}")
    count, *numbers = np.frombuffer(rest, "<i4")
    starts = np.flatnonzero(np.equal(numbers, 0))[-count:]  # a row starts with its only 0
    if not 0 < count == len(starts):
        raise ValueError(f"a {cls.__name__} of {count} rows has {len(starts)}")
    cdfs = np.split(np.array(numbers, np.int32), starts)[1:]
    table = cls.from_numbers([int(number) for number in numbers[: starts[0]]], cdfs)
    if table.to_bytes() != data:
        raise ValueError(f"a {cls.__name__} with other numbers than it says")
    return table
