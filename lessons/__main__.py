"""The guide to the lessons: `python3 -m lessons`.

What it does: the command line, and what the reader sees.  What it leaves to others: what the lessons are (chapters.py),
playing (play.py, tap.py), checking (check.py), what a terminal can show (screen.py).
"""
from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import chapters, screen
from .chapters import Chapter
from .check import check
from .play import Show, Stuck, Wire, play
from .progress import Progress

GUIDE = 'python3 -m lessons'
TWO_COLUMNS = 100  # so wide must a terminal be for two columns of code


# The map .............................................................................................

def show_map(options: argparse.Namespace) -> int:
    progress, everything = Progress(), chapters.chapters()
    done, not_done = ('✓', ' ') if screen.can_show('✓') else ('[x]', '[ ]')
    for chapter in everything:
        mark = done if chapter.name in progress.done else not_done
        both = f'{chapter.title} · {chapter.chinese_title}'
        print(screen.wrap(both if screen.can_show(both) else chapter.title, f'{mark} {chapter.number:>2}  '))
    print()
    say_what_comes_next(progress)
    return 0


def say_what_comes_next(progress: Progress) -> None:
    everything = chapters.chapters()
    left = [chapter for chapter in everything if chapter.name not in progress.done]
    if not left:
        return print(f'All {len(everything)} chapters are done.')
    done = len(everything) - len(left)
    print(screen.wrap(f'{done} of {len(everything)} chapters {"is" if done == 1 else "are"} done. '
                      f'Next is {left[0].number}: read {readable(left[0].folder / "README.md")} and type'))
    print(f'    {GUIDE} {"check" if left[0].name in progress.run else "run"} {left[0].number}')


def readable(path: Path) -> str:
    """Return the path as it is typed in the project's top folder."""
    return path.relative_to(chapters.LESSONS.parent).as_posix()


# Playing .............................................................................................

def run_chapter(options: argparse.Namespace) -> int:
    play_scenes(options.chapter, Wire)
    progress = Progress()
    progress.note(progress.run, options.chapter)
    return 0


def trace_chapter(options: argparse.Namespace) -> int:
    from .tap import Tap  # here: it alone needs the protocol, and that takes longer to load than all the rest
    if not any('->' in who for who in play_scenes(options.chapter, Tap if options.chapter.programs else Wire)):
        print('\nNo client and no server of this chapter to listen to: this is what `run` shows.')
    return 0


def play_scenes(chapter: Chapter, make_wire: Callable[[int, Show], Wire]) -> set[str]:
    """Play what stands in "Run it"; return who showed something."""
    scenes = chapter.scenes()
    if not scenes:
        raise Refused(f'chapter {chapter.number} has nothing to run')
    terminals = dict.fromkeys(step.terminal for scene in scenes for step in scene)
    colors = dict(zip(terminals, screen.TERMINALS * len(terminals)))
    who_spoke = set()

    def show(who: str, line: str) -> None:
        who_spoke.add(who)
        print(f'{screen.paint(f"{who} |", colors.get(who, screen.FAINT))} {line}', flush=True)

    for number, scene in enumerate(scenes):
        if number:
            print()
        play(scene, show, make_wire)
    return who_spoke


# The exercise ........................................................................................

def check_exercise(options: argparse.Namespace) -> int:
    chapter = options.chapter
    file = options.file or _exercise(chapter)
    code, answer = check(chapter, file, options.coverage)
    if code == 2:
        raise Refused(answer)
    print(answer)
    if code:
        print(f'\nA hint: {GUIDE} hint {chapter.number}')
    elif file.resolve() != chapter.folder / 'solution.py':
        progress = Progress()
        progress.note(progress.done, chapter)
        print()
        say_what_comes_next(progress)
    return code


def _exercise(chapter: Chapter) -> Path:
    """Return the reader's file; how it is named where the reader stands, if that is shorter."""
    file = chapter.folder / 'exercise.py'
    with contextlib.suppress(ValueError):  # it is elsewhere
        return file.relative_to(Path.cwd())
    return file


def give_hint(options: argparse.Namespace) -> int:
    chapter, progress = options.chapter, Progress()
    hints, given = chapter.hints, progress.hints.get(chapter.name, 0)
    number = min(given + 1, len(hints))
    print(f'Hint {number} of {len(hints)}\n\n{screen.plain(hints[number - 1])}')
    if given >= len(hints):
        print(f'\nThat is the last. The answer:\n    {GUIDE} solution {chapter.number}')
    progress.hints[chapter.name] = number
    progress.save()
    return 0


def show_solution(options: argparse.Namespace) -> int:
    names = [_exercise(options.chapter), options.chapter.folder / 'solution.py']
    if not names[1].exists():
        raise Refused(f'chapter {options.chapter.number} has no solution')
    yours, solved = (_lines(name) if name.exists() else [] for name in names)
    if yours == solved:
        print('Your file is the solution.')
    elif screen.width() >= TWO_COLUMNS:
        print(*screen.side_by_side(['yours', '', *yours], ['the solution', '', *solved]), sep='\n')
    else:
        difference = difflib.unified_diff(yours, solved, 'yours', 'the solution', lineterm='', n=len(solved))
        print(*screen.painted_diff(list(difference)), sep='\n')
    return 0


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding='utf-8', errors='replace').splitlines()


# The programs ........................................................................................

def show_difference(options: argparse.Namespace) -> int:
    chapter = options.chapter
    if not chapter.programs:
        print(f'Chapter {chapter.number} has no server and no client.')
    elif chapter.before is None:
        print(f'Chapter {chapter.number} begins from nothing: there is none before that has programs.')
    else:
        print(*screen.painted_diff(chapter.difference()), '', sep='\n')
        print(f'{chapter.changed_lines} lines were added or removed since chapter {chapter.before.number}.')
        for name in chapter.new_files:
            print(f'New is {readable(chapter.folder / name)}, {len(chapter.programs[name].splitlines())} lines.')
    return 0


# The command line ....................................................................................

class Refused(Exception):
    """What the reader asked for cannot be done; the text is a sentence that says why."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{message} (all commands: {GUIDE} -h)\n')


def make_parser() -> Parser:
    parser = Parser(prog=GUIDE, description='The guide to the lessons. Without a command: the map.', allow_abbrev=False)
    parser.set_defaults(do=show_map)
    verbs = parser.add_subparsers(metavar='COMMAND')

    def add(verb: str, do: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(verb, help=help, description=help, allow_abbrev=False)
        sub.add_argument('wanted', metavar='N', help='4, 04 or sticky_half_packets')
        sub.set_defaults(do=do)
        return sub

    add('run', run_chapter, 'play what stands in its "Run it", live')
    checking = add('check', check_exercise, 'check your exercise.py')
    checking.add_argument('--file', type=Path, metavar='F', help='check this file')
    checking.add_argument('--coverage', action='store_true', help='show which of its lines were reached')
    add('hint', give_hint, 'the next hint for the exercise')
    add('solution', show_solution, 'the solution beside your exercise.py')
    add('diff', show_difference, 'what changed in the programs since the chapter before')
    add('trace', trace_chapter, 'like run, with every frame that crosses the wire explained')
    return parser


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='replace')
    for name in ('SIGTERM', 'SIGHUP'):  # as Ctrl-C: what was started has to be ended
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        code = _do(make_parser().parse_args(arguments))
        sys.stdout.flush()
        return code
    except Refused as error:
        return _complain(error, 2)
    except Stuck as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain('stopped', 130)
    except BrokenPipeError:  # `| head -1`: enough was read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it an error when Python ends
        return 0
    except OSError as error:  # a file of a chapter
        return _complain(f'{error.filename}: {error.strerror}', 1)


def _do(options: argparse.Namespace) -> int:
    if 'wanted' in options:
        try:
            options.chapter = chapters.find(options.wanted)
        except LookupError as error:
            raise Refused(error) from None
    return options.do(options)


def _complain(message: object, code: int) -> int:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
