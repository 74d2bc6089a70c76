"""The model behind `docs/scaling.md`, compared with a simulated ring."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module", name="scaling")
def _scaling():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))  # Python does this for a script
        return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def turn(members):
    """Sums over a ring. Returns the arrays of the members, the turns, and the numbers sent per
    turn.
    """
    count = len(members)
    parts = [list(np.split(member.copy(), count)) for member in members]
    turns = 0
    for gather in (False, True):
        for shift in range(count - 1):
            sent = [(k, (k - shift + gather) % count) for k in range(count)]
            sent = [(k, place, parts[k][place].copy()) for k, place in sent]
            for k, place, values in sent:
                target = parts[(k + 1) % count]
                target[place] = values if gather else target[place] + values
            turns += 1
    return [np.concatenate(part) for part in parts], turns, len(members[0]) // count


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_ring_takes_the_turns_and_the_bytes_that_summing_by_hand_takes(scaling, count):
    members = list(np.random.default_rng(0).normal(size=(count, 48)))
    sums, turns, numbers = turn(members)
    for found in sums:
        np.testing.assert_allclose(found, np.sum(members, axis=0), rtol=1e-12)
    seconds = scaling.ring(count, 4.0 * 48, bandwidth=10.0, latency=0.5)
    assert seconds == pytest.approx(turns * (4 * numbers / 10.0 + 0.5))


def test_a_step_is_its_slowest_part(scaling):
    machine = scaling.Machine(1e12, 1e9, 1e8, 0.0, per_host=8, cores=2.0)
    work = scaling.Workload(flops=1e9, gradient_bytes=8e6, core_seconds=1e-3, input_bytes=1e5)
    alone = scaling.step(work, machine, 1, 4)
    assert alone == (pytest.approx(4e-3), 0.0, pytest.approx(2e-3))
    assert alone.total == pytest.approx(4e-3)
    host = scaling.step(work, machine, 8, 4)
    assert host.reduce == pytest.approx(2 * 7 * 1e6 / 1e9)
    hosts = scaling.step(work, machine, 16, 4)
    assert hosts.reduce == pytest.approx(host.reduce + 2 * 4e6 / 1e8)
    assert hosts.total == pytest.approx(4e-3 + hosts.reduce)
    hungry = work._replace(core_seconds=1.0)
    assert scaling.step(hungry, machine, 16, 4).total == pytest.approx(2.0)


def test_a_table_has_a_row_for_each_number_of_accelerators(scaling):
    machine = scaling.Machine(1e12, 1e9, 1e8, 0.0, per_host=8, cores=2.0)
    work = scaling.Workload(flops=1e9, gradient_bytes=0.0, core_seconds=0.0, input_bytes=1e5)
    row = scaling.table(work, machine, [1, 16], lambda n: 4).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # 16 x 4 images in 4 ms; half of them, 1e5 bytes each, on each host.
    assert cells == ["16", "4", "64", "4.00", "0.00", "0.00", "4.00", "16,000", "100%", "800"]
