"""Coding tables in the file `tables.npz` of an exported model.

The file holds an array for each latent, uint8: the bytes of `Table.to_bytes`. A reader takes the
very integers that the encoder used: another machine could compute a frequency differently.
"""

from __future__ import annotations

import io

import numpy as np

from tfquant.coding.decisions import DecisionTable
from tfquant.coding.tables import ChannelTable, MeanScaleTable, ScaleTable, Table

NAME = "tables.npz"
_CLASSES = {cls.__name__: cls for cls in (ChannelTable, ScaleTable, MeanScaleTable, DecisionTable)}


def dump(tables: dict) -> bytes:
    """The file of tables, latent's name -> table."""
    file = io.BytesIO()
    arrays = {name: np.frombuffer(t.to_bytes(), np.uint8) for name, t in tables.items()}
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def load(data: bytes) -> dict:
    """Latent's name -> table, from the file's bytes.

    Raises:
      ValueError: the bytes are not those of such a file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: table_from_bytes(arrays[name].tobytes()) for name in arrays.files}
    except Exception as error:  # zip, NumPy and the tables each raise their own
        raise ValueError(f"{NAME} is damaged: {error}") from None


def table_from_bytes(data: bytes) -> Table:
    """The table whose `to_bytes` gave `data`.

    Raises:
      ValueError: no table has these bytes.
    """
    name, _, rest = data.partition(b"\0")
    cls = _CLASSES.get(name.decode("latin-1"))
    if cls is None or len(rest) % 4 or not rest:
        raise ValueError(f"no coding table begins with {data[:20]!r}")
    count, *numbers = np.frombuffer(rest, "<i4")
    starts = np.flatnonzero(np.equal(numbers, 0))[-count:]  # a row begins with the only 0 in it
    if not 0 < count == len(starts):
        raise ValueError(f"a {cls.__name__} of {count} rows has {len(starts)}")
    cdfs = np.split(np.array(numbers, np.int32), starts)[1:]
    table = cls.from_numbers([int(number) for number in numbers[: starts[0]]], cdfs)
    if table.to_bytes() != data:
        raise ValueError(f"a {cls.__name__} with other numbers than it says")
    return table
