"""How the project is written: sizes, imports, type hints, encodings, files; what the README names."""
import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import imclient
import imserver
import protocol

ROOT = Path(__file__).resolve().parent.parent
NAMES = ('protocol', 'reactor', 'store', 'console', 'imserver', 'imclient')
MAX_LINES = dict.fromkeys(NAMES, 600) | {'imserver': 800, 'imclient': 800}  # fewer than that
MAY_IMPORT = dict.fromkeys(NAMES, set()) | {
    'imserver': {'protocol', 'reactor', 'store', 'console'}, 'imclient': {'protocol', 'reactor', 'console'}}
IMPURE = {'socket', 'selectors', 'time', 'threading', 'os', 'io', 'pathlib', 'asyncio', 'subprocess'}
TOP_LEVEL = {'README.md', 'lessons', 'tests', 'requirements-dev.txt', *(f'{name}.py' for name in NAMES)}
FILES = sorted([*ROOT.glob('*.py'), *ROOT.glob('tests/**/*.py'), *ROOT.glob('lessons/**/*.py')])
TEXTS = {path: path.read_text(encoding='utf-8') for path in FILES}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
MODULES = {name: TREES[ROOT / f'{name}.py'] for name in NAMES}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPE = (ast.ClassDef, ast.Module, *FUNCTION)


def place(path, node):
    return f'{path.relative_to(ROOT)}:{node.lineno}'


def nodes(tree, kind):
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def length(function):
    return function.end_lineno - function.lineno + 1


def imported(tree):
    """The top-level names of all modules that are imported anywhere in it."""
    plain = [alias.name for node in nodes(tree, ast.Import) for alias in node.names]
    names = plain + [node.module or '.' for node in nodes(tree, ast.ImportFrom)]
    return {name.partition('.')[0] for name in names}


def public(tree):
    """The functions and methods that are public, as are their classes; not those inside functions."""
    for node in tree.body:
        if isinstance(node, SCOPE) and not node.name.startswith('_'):
            yield from public(node) if isinstance(node, ast.ClassDef) else [node]
        elif isinstance(node, FUNCTION) and node.name.startswith('__') and isinstance(tree, ast.ClassDef):
            yield node  # the special ones are called by everybody


@pytest.mark.parametrize('name', NAMES)
def test_a_module_is_read_in_one_sitting(name):
    assert len(TEXTS[ROOT / f'{name}.py'].splitlines()) < MAX_LINES[name]


def test_no_function_is_long():
    assert not [f'{place(path, function)} {function.name}: {length(function)} lines'
                for path, tree in TREES.items() for function in nodes(tree, FUNCTION)
                if length(function) > 50]


def test_most_functions_are_short():
    lengths = sorted(length(function) for tree in MODULES.values() for function in nodes(tree, FUNCTION))
    assert statistics.median(lengths) <= 10
    assert lengths[len(lengths) * 9 // 10] <= 30


@pytest.mark.parametrize('name', NAMES)
def test_imports_run_one_way_and_need_nothing_installed(name):
    own, others = imported(MODULES[name]) & {*NAMES, 'tests', 'lessons'}, imported(MODULES[name]) - {*NAMES}
    assert own == MAY_IMPORT[name]
    assert others <= set(sys.stdlib_module_names)


def test_the_protocol_touches_nothing():
    tree = MODULES['protocol']
    assert not imported(tree) & IMPURE
    assert not [node.lineno for node in nodes(tree, ast.Call) if isinstance(node.func, ast.Name)
                and node.func.id in ('open', 'print', 'input', '__import__', 'exec', 'eval')]


@pytest.mark.parametrize('name', NAMES)
def test_a_module_says_what_it_does(name):
    assert 'what it does' in (ast.get_docstring(MODULES[name]) or '').lower()


def test_every_file_says_what_it_is():
    assert not [str(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


def unhinted(function):
    """What has no type hint: names of parameters, and 'return'."""
    a = function.args
    parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    found = [p.arg for p in parameters if p.annotation is None and p.arg not in ('self', 'cls')]
    return found if function.returns else [*found, 'return']


@pytest.mark.parametrize('name', NAMES)
def test_what_is_public_has_type_hints(name):
    found = list(public(MODULES[name]))
    assert found
    assert not [f'{name}.py:{function.lineno} {function.name}: {", ".join(missing)}'
                for function in found if (missing := unhinted(function))]


def opens_text_blindly(call):
    """Whether the call opens a text file in whatever encoding the machine prefers."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, 'attr', '')
    if name not in ('read_text', 'write_text') and not (name == 'open' and isinstance(call.func, ast.Name)):
        return False
    modes = call.args[1:2] + [keyword.value for keyword in call.keywords if keyword.arg == 'mode']
    is_binary = name == 'open' and any('b' in mode.value for mode in modes if isinstance(mode, ast.Constant))
    return not is_binary and all(keyword.arg != 'encoding' for keyword in call.keywords)


def test_text_files_are_opened_with_an_encoding():
    assert not [place(path, call) for path, tree in TREES.items() for call in nodes(tree, ast.Call)
                if opens_text_blindly(call)]


def test_nothing_else_stands_at_the_top_level():
    if not (ROOT / '.git').exists():
        pytest.skip('this is no checkout')
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, check=True, capture_output=True,
                            encoding='utf-8')
    entries = {name.partition('/')[0] for name in listed.stdout.split('\0') if name}
    assert not {entry for entry in entries if not entry.startswith('.')} - TOP_LEVEL


def options(parser):
    actions = [action for action in parser._actions if action.dest != 'help']  # that one is argparse's own
    return [option for action in actions for option in action.option_strings]


@pytest.mark.parametrize('names', [
    [command.name for command in protocol.Command], options(imserver.make_parser()),
    options(imclient.make_parser()), list(imclient.COMMANDS)], ids=['commands', 'server', 'client', 'slash'])
def test_the_readme_names_it(names):
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert not [name for name in names if not re.search(rf'(?<![\w-]){re.escape(name)}(?![\w-])', readme)]
