"""Fixtures that several files of tests use, and the figures that they print in the end."""
import os
import signal
import tempfile

import pytest
from processes import System

STATE = tempfile.TemporaryDirectory()  # where our clients keep their history: not in that of who runs the tests
os.environ['XDG_STATE_HOME'] = STATE.name
# A shell that starts the tests in the background has them ignore Ctrl-C; what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
FIGURES: list[str] = []  # what the tests of this run measured


@pytest.fixture(scope='module')
def no_coverage():
    """Processes that coverage followed would be slower, and what it learned from them is not wanted."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith('COVERAGE_')]:
            patch.delenv(name)
        yield


@pytest.fixture
def system(tmp_path):
    """Servers, terminals and peers in processes of their own; all are ended with the test."""
    system = System(tmp_path)
    try:
        yield system
    finally:
        system.end()


@pytest.fixture
def figure(request):
    """figure('100,000 mutations, 0 other exceptions'): print it at the end of the run, beside the test's name."""
    return lambda text: FIGURES.append(f'{request.node.name}: {text}')


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section('figures')
        for line in FIGURES:
            terminalreporter.write_line(line)
