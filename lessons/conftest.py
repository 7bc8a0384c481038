"""What the tests of the chapters get: the fixture `exercise`, the module that they check."""
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lessons.check import load


@pytest.fixture
def exercise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The chapter's exercise.py, or the file that the environment variable LESSON_FILE names; new for each test."""
    folder = request.path.parent
    name = f'lessons.{folder.name}.exercise'
    monkeypatch.setitem(sys.modules, name, ModuleType(name))  # put back when the test is over
    return load(Path(os.environ.get('LESSON_FILE') or folder / 'exercise.py'), name)
