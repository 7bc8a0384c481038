"""Fixtures that several files of tests use."""
import os

import pytest


@pytest.fixture(scope='module')
def no_coverage():
    """Processes that coverage followed would be slower, and what it learned from them is not wanted."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith('COVERAGE_')]:
            patch.delenv(name)
        yield
