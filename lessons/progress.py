"""What the reader has done so far, in the file .progress beside the chapters.

What it does: reads and writes it.  What it leaves to others: when something is done (__main__.py).  A chapter is known
by its folder's name.
"""
from __future__ import annotations

import json
import sys

from . import chapters


class Progress:
    """Chapters that were run, those whose exercise is done, and how many hints were given for each."""

    def __init__(self) -> None:
        self.file = chapters.LESSONS / '.progress'
        self.run: list[str] = []
        self.done: list[str] = []
        self.hints: dict[str, int] = {}
        try:
            self._take(json.loads(self.file.read_text(encoding='utf-8')))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError):
            print(f'{self.file} cannot be read: it starts anew', file=sys.stderr)

    def _take(self, values: dict[str, object]) -> None:
        """Raises ValueError, TypeError or KeyError where it is not what `save` writes; then nothing is taken."""
        run, done, hints = values['run'], values['done'], values['hints']
        if not all(isinstance(name, str) for name in [*run, *done]) or not all(type(n) is int for n in hints.values()):
            raise ValueError
        self.run, self.done, self.hints = list(run), list(done), dict(hints)

    def note(self, names: list[str], chapter: chapters.Chapter) -> None:
        """Put the chapter into `run` or `done`."""
        if chapter.name not in names:
            names.append(chapter.name)
            self.save()

    def save(self) -> None:
        values = {'run': self.run, 'done': self.done, 'hints': self.hints}
        try:
            self.file.write_text(json.dumps(values, indent=1) + '\n', encoding='utf-8')
        except OSError as error:
            print(f'{self.file} cannot be written: {error.strerror}', file=sys.stderr)
