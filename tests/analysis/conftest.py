"""What the analyses' tests share: rows of the table that are put back."""

from __future__ import annotations

import dataclasses

import pytest

from tfquant.quantization.surrogates import SURROGATES


@pytest.fixture
def alter(monkeypatch):
    """`alter(name, new_name=None, **changes)`: a row of the table with changes, for one test."""

    def change(name, new_name=None, **changes):
        new_name = new_name or name
        row = dataclasses.replace(SURROGATES[name], name=new_name, **changes)
        monkeypatch.setitem(SURROGATES, new_name, row)

    return change
