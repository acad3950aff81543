"""`python -m bench.threads`: every engine is timed with every number of threads."""

import pytest

from bench.cases import Case
from bench.peers import installed
from bench.threads import MODES, PEERS, line, measure


@pytest.mark.parametrize("mode", MODES)
def test_every_count(mode):
    found = measure(Case("threads", 3, 2, 4, 5), mode, [1, 2], installed(list(PEERS))[0], 0.0)
    assert set(found) <= {"fastlstm", *PEERS}
    assert "fastlstm" in found
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())


def test_a_line():
    assert line("a case", [0.004, 0.002, 0.001]).split() == ["a", "case", "4.000", "2.00", "4.00"]
