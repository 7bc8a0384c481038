"""Nothing drifts: every chapter keeps the rules of lesson_rules.py, and a chapter that breaks one is found out.

`-k 04_sticky` judges one chapter.
"""
import pytest

import lessons.chapters
from lessons.chapters import ROOT, chapters
from tests.lesson_rules import RULES
from tests.weave import woven, woven_top

CHAPTERS = chapters()


def test_chapters_are_numbered_without_a_hole():
    folders = sorted(path.name for path in (ROOT / 'lessons').iterdir() if path.is_dir() and path.name[0] not in '_.')
    assert [chapter.name for chapter in CHAPTERS] == folders, 'a folder has no README.md'
    assert [chapter.number for chapter in CHAPTERS] == list(range(len(CHAPTERS))) != []


def test_the_top_readme_has_the_map():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert readme.count('<!-- map -->\n') == readme.count('<!-- end of map -->') == 1
    assert woven_top(readme) == readme, 'python3 -m tests.weave writes it anew'


@pytest.mark.parametrize('chapter', CHAPTERS, ids=lambda chapter: chapter.name)
@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_a_chapter(chapter, rule):
    problems = list(rule(chapter))
    assert not problems, '\n'.join(['', *problems])


# The rules can be broken .............................................................................

README = """# Chapter {number}: Numbers · 数

*You build {term}.*

About 5 minutes<!-- =minutes -->.

## You will build
A **{term}** of 11<!-- =HEADER_SIZE --> bytes; {more}. [This](#see-it-fail) is in `server.py`, by RFC 1234.

## In Netty's words
| Netty | 中文 | here | file |
| --- | --- | --- | --- |
| `{term}` | 数 | `value` | server.py |

## See it fail
```console you
$ python3 -m lessons.{name}.see_it_fail
```

## Build it
```python server.py
def value() -> int:
    return {number}
```

## Run it
```console server
$ python3 -m lessons.{name}.server
```

## What happened
```console you
$ python3 -m lessons.{name}.picture
```

## Exercise
`python3 -m lessons check {number}` or `python3 -m pytest lessons/{name}/test_exercise.py`.

{hints}

## Check yourself
{questions}

## What changed
Of the lines 9<!-- =changed --> are new.

```diff
```
"""
FOLDED = '<details><summary>{}</summary>\n\ntext\n\n</details>\n'
ANSWER = '"""It."""\n\n\ndef answer(question: str) -> int:\n    return 0{}\n'
FILES = {'server.py': '"""It."""\nimport sys\n\n\ndef value() -> int:\n    return {number}\n',
         'client.py': '"""It."""\n', 'picture.py': '"""It."""\n', 'see_it_fail.py': '"""It."""\n' * 30,
         'exercise.py': ANSWER.format('  # TODO'), 'solution.py': ANSWER.format(''),
         'test_exercise.py': 'expect("answer()", 0, 1, "Build it")\n'}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of two chapters that keep all rules; the second, 01_second, is the one to spoil."""
    monkeypatch.setattr(lessons.chapters, 'LESSONS', tmp_path)
    words = [('00_first', 'Alpha', 'more in chapter 1, with `Beta`'),
             ('01_second', 'Beta', '\n\n**You need** `Alpha`\n\n')]
    hints = ''.join(FOLDED.format(f'Hint {number}') for number in (1, 2, 3))
    for number, (name, term, more) in enumerate(words):
        (tmp_path / name).mkdir()
        text = README.format(number=number, name=name, term=term, more=more, hints=hints,
                             questions=FOLDED.format('Why?') * 5)
        for file, content in {**FILES, 'README.md': text}.items():
            (tmp_path / name / file).write_text(content.replace('{number}', str(number)), encoding='utf-8')
    for chapter in chapters():
        (chapter.folder / 'README.md').write_text(woven(chapter), encoding='utf-8')
    return tmp_path / '01_second'


def faults():
    return [problem for chapter in chapters() for rule in RULES for problem in rule(chapter)]


def test_a_good_chapter_breaks_no_rule(folder):
    assert faults() == []


@pytest.mark.parametrize('file, old, new, said', [
    ('README.md', '11<!--', '12<!--', 'is stale'),
    ('README.md', '+    return 1', '+    return 2', 'is stale'),
    ('README.md', 'HEADER_SIZE', 'NO_SUCH', 'README.md:8: <!-- =NO_SUCH -->: NameError'),
    ('README.md', '11<!--', 'eleven <!--', 'has no number before it'),
    ('README.md', 'by RFC', 'of 1999, by RFC', 'README.md:12: 1999 has no <!-- =EXPRESSION -->'),
    ('README.md', 'int:\n    return 1\n```', 'int:\n    return 2\n```', 'this is not in server.py'),
    ('README.md', 'python server.py', 'python', "a block of '', which is no file"),
    ('README.md', '```python server.py', '```', 'has no language'),
    ('README.md', '## Run it', '## Run', 'its sections are'),
    ('README.md', 'Hint 3', 'Hunt 3', 'Exercise: 2 that are not empty, not 3'),
    ('README.md', 'Why?</summary>\n\ntext', 'Why?</summary>\n\n', 'Check yourself: 0 that are not empty, not 5'),
    ('README.md', 'check 1`', 'check 2`', 'does not say `python3 -m lessons check 1`'),
    ('README.md', '01_second.picture', '01_second.server', 'no transcript of picture'),
    ('README.md', '.server\n```', f'.server\n{"x" * 101}\n```', 'README.md:33: 101 columns, 100 are allowed'),
    ('README.md', '(#see-it-fail)', '(#seen)', 'there is no heading for #seen'),
    ('README.md', '(#see-it-fail)', '(../02_third/README.md)', 'there is no ../02_third/README.md'),
    ('README.md', 'in `server.py`', 'in `no_such.py`', 'there is no file no_such.py'),
    ('README.md', '| 数 ', '', 'a row of the table is'),
    ('README.md', '`value` |', '`worth` |', "Beta: server.py has no ['worth']"),
    ('README.md', '**Beta**', 'Beta', 'README.md:8: the first mention of Beta is not **bold**'),
    ('README.md', '`Alpha`', '`Omega`', 'Omega is a term of no earlier chapter'),
    ('README.md', '| `Beta`', '| `Alpha`', 'Alpha is a term of chapter 0'),
    ('../00_first/README.md', 'in chapter 1', 'later', '00_first/README.md:8: Beta comes in chapter 1'),
    ('README.md', '## Run it', '| | where in `server.py` |\n| --- | --- |\n| it | `worth` |\n\n## Run it', 'py has no worth'),
    ('notes.txt', '', 'x', '01_second/notes.txt does not belong there'),
    ('server.py', 'import sys', 'import numpy', '01_second/server.py:2: imports numpy'),
    ('server.py', 'import sys', 'import reactor', '01_second/server.py:2: imports reactor'),
    ('server.py', 'return 1', 'return input()', '01_second/server.py:6: reads the keyboard'),
    ('server.py', 'return 1', 'return 0', '0 lines changed since 00_first'),
    ('client.py', 'It', 'It\n' * 121, 'lines changed since 00_first, at most 120'),
    ('picture.py', 'It', 'It\n' * 79, '01_second/picture.py: 80 lines'),
    ('test_exercise.py', 'Build', 'Make', "01_second/test_exercise.py:1: 'Make it' is no heading"),
    ('exercise.py', 'TODO', 'DONE', 'has no TODO'),
    ('solution.py', ': str', '', 'answer(question: str) -> int in exercise.py, answer(question) -> int in solution.py'),
])
def test_a_fault_is_named(folder, file, old, new, said):
    path = folder / file
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    assert old in text
    path.write_text(text.replace(old, new) if old else new, encoding='utf-8')
    assert any(said in problem for problem in faults()), faults()
