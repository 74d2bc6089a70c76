"""Fixtures for tests of the analyses: rows of the table that are restored after a test."""

from __future__ import annotations

import dataclasses

import pytest

from tfquant.quantization.surrogates import SURROGATES


@pytest.fixture
def alter(monkeypatch):
    """`alter(name, new_name=None, **changes)`: changes a row of the table for one test."""

    def change(name, new_name=None, **changes):
        new_name = new_name or name
        row = dataclasses.replace(SURROGATES[name], name=new_name, **changes)
        monkeypatch.setitem(SURROGATES, new_name, row)

    return change
