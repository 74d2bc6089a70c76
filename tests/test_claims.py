"""A folder belongs to what it was made for."""

from __future__ import annotations

import pytest

from tfquant import claims


def test_the_same_is_let_pass_whatever_its_order():
    claims.check("runs/a", "--out", "grid", {"a": 1, "b": [2]}, {"b": [2], "a": 1})


def test_what_differs_or_is_missing_on_either_side_is_named():
    asked, found = {"a": 1, "b": 2, "d": 4}, {"a": 1, "b": 3, "c": 5}
    message = r"^runs/a holds another grid \(differs in b, c, d\); name a new --out, delete this"
    with pytest.raises(ValueError, match=message):
        claims.check("runs/a", "--out", "grid", asked, found)
