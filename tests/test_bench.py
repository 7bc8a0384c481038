"""The benchmark runs and finds figures; how good they are is not judged here."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures('no_coverage')
BENCH = Path(__file__).parent / 'bench.py'


def bench(*arguments):
    return subprocess.run([sys.executable, str(BENCH), '--quick', *arguments], capture_output=True, encoding='utf-8',
                          timeout=60)


def test_it_measures_our_server_and_the_others():
    done = bench('--only', 'latency', '--json', '--servers', 'off', 'protocol', 'reactor')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)['latency of one pair']
    assert list(found) == ['off', 'protocol', 'reactor']
    assert all(len(figures) == 2 and all(0 < figure < 1_000 for figure in figures) for figures in found.values())


def test_a_server_that_does_not_start_is_named():
    done = subprocess.run([sys.executable, '-c', 'import sys; sys.path.insert(0, sys.argv.pop()); import bench; '
                           'bench.Server("nonsense", "")', str(BENCH.parent)], capture_output=True, encoding='utf-8',
                          timeout=20)
    assert done.returncode == 1 and done.stderr.endswith('nonsense did not start\n')
