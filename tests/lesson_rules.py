"""The rules of the lessons: what a chapter's README says is what stands in its files, and its files keep their form.

A rule takes a chapter and gives a sentence for each thing that is wrong, with its line; nothing for a good chapter.
test_lessons.py holds all chapters to all rules; the promises of what runs are in test_lesson_runs.py.
"""
import ast
import re
import sys
from collections.abc import Callable, Iterator
from itertools import zip_longest

from lessons.chapters import ROOT, SECTIONS, Chapter, chapters
from tests.weave import NUMBER, blank, file_of, line_at, prose, woven

CODE = re.compile(r'(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)', re.DOTALL)
LINK = re.compile(r'\[[^][]*\]\(([^()\s]*)\)')
EMPHASIS = re.compile(r'\*\*(?!\s)((?:(?!\n\n).)+?)\*\*', re.DOTALL)
FILE_NAME = re.compile(r'`([\w./-]+\.(?:py|md|txt))`')
DIGITS = re.compile(r'(?<![\w.])(?<![A-Za-z]-)\d+(?:,\d{3})*(?:\.\d+)*')  # not those of a name: base64, UTF-16
NO_NUMBER = re.compile(r'RFC \d+|Python \d+(\.\d+)+( to \d+(\.\d+)+)?|[Cc]hapters? \d+((, | and | to |–)\d+)*')
SENTENCE_END = re.compile(r'(?<=[.!?])[)*"\']*\s+(?![a-z\s])|\n\s*\n|\n(?=\s*(?:[|#-]|\d\. ))')
NO_MENTION = re.compile(r'\A.*?(?=^## )|^[#|][^\n]*', re.MULTILINE | re.DOTALL)
ALWAYS = {'README.md', 'exercise.py', 'solution.py', 'test_exercise.py', 'see_it_fail.py', 'picture.py'}
HANDLERS_SINCE = 6  # the chapter from which on there may be a handlers.py
ITS_OWN = {11: {'commits.py'}, 12: {'asyncio_server.py', 'measure.py'}, 13: {'fuzzer.py'}}  # what one chapter has besides
SIZES = {'picture.py': (1, 79), 'see_it_fail.py': (30, 100)}  # lines, from and to; others have up to 199
MAX_CHANGE, CHANGES_MORE = 120, (9,)  # lines from one chapter to the next; 9 changes to reactor.py, and says so
Rule = Callable[[Chapter], Iterator[str]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


def at(chapter: Chapter, index: int, what: str) -> str:
    return f'{chapter.name}/README.md:{line_at(chapter.readme, index)}: {what}'


def start(chapter: Chapter, section: str) -> int:
    """Where a section begins in the README; 0 when it is missing."""
    return max(0, chapter.readme.find(f'\n## {section}\n') + 1)


def whole_word(word: str) -> re.Pattern[str]:
    return re.compile(r'(?<!\w)' + r'\s+'.join(map(re.escape, word.split())) + r'(?!\w)')


def sources(chapter: Chapter) -> Iterator[tuple[str, str, ast.Module]]:
    """The Python files of a chapter: name, text and tree of each."""
    for path in sorted(chapter.folder.glob('*.py')):
        text = path.read_text(encoding='utf-8')
        yield path.name, text, ast.parse(text, f'{chapter.name}/{path.name}')


# The folder and the form of the README ...............................................................

@rule
def has_its_files_and_no_others(chapter: Chapter) -> Iterator[str]:
    found = {path.name for path in chapter.folder.iterdir()} - {'__pycache__'}
    programs = {'demo.py'} if 'demo.py' in found else {'server.py', 'client.py'}
    needed = (ALWAYS | programs) - ({'see_it_fail.py'} if chapter.number == 0 else set())
    yield from (f'{chapter.name}/{name} is missing' for name in sorted(needed - found))
    may = ALWAYS | programs | ({'handlers.py'} if chapter.number >= HANDLERS_SINCE else set())
    may |= ITS_OWN.get(chapter.number, set())
    yield from (f'{chapter.name}/{name} does not belong there' for name in sorted(found - may))


@rule
def has_its_headings_in_their_order(chapter: Chapter) -> Iterator[str]:
    text = blank(re.compile(r'^```\S.*?^```$', re.MULTILINE | re.DOTALL), chapter.readme)
    if not re.match(rf'# Chapter {chapter.number}: [^·\n]+ · [^·\n]+\n\n\*[^*]+\*\n\nAbout ', text):
        yield at(chapter, 0, 'begins with a title "# Chapter N: English · 中文", *what you build*, About N minutes')
    found = re.findall(r'^## (.*)$', text, re.MULTILINE)
    if found != list(SECTIONS):
        yield at(chapter, 0, f'its sections are {found}')
    for match in re.finditer(r'^\s*```', text, re.MULTILINE):
        yield at(chapter, match.end(), 'a fence that has no language, is indented, or is not closed')


@rule
def is_woven(chapter: Chapter) -> Iterator[str]:
    try:
        new = woven(chapter).splitlines()
    except ValueError as error:
        yield str(error)
        return
    for number, (old, right) in enumerate(zip_longest(chapter.readme.splitlines(), new), 1):
        if old != right:
            yield f'{chapter.name}/README.md:{number}: {old!r} is stale, {right!r} is right: python3 -m tests.weave'
            return


@rule
def folds_three_hints_and_five_answers(chapter: Chapter) -> Iterator[str]:
    for section, titles, wanted in (('Exercise', r'Hint \d', 3), ('Check yourself', r'.+\?', 5)):
        found = [title for title, text in chapter.folded(section) if re.fullmatch(titles, title, re.DOTALL) and text]
        if len(found) != wanted or chapter.sections.get(section, '').count('<details>') != wanted:
            yield at(chapter, start(chapter, section), f'{section}: {len(found)} that are not empty, not {wanted}')


@rule
def shows_what_is_in_the_files(chapter: Chapter) -> Iterator[str]:
    for block in chapter.blocks():
        place = chapter.readme.find(f'```{block.language} {block.about}\n{block.text}')
        if block.language == 'python':
            file = file_of(chapter, block.about)
            if not block.about or not file.is_file():
                yield at(chapter, place, f'a block of {block.about!r}, which is no file')
            elif f'\n{block.text}' not in f'\n{file.read_text(encoding="utf-8")}':
                yield at(chapter, place, f'this is not in {block.about}, or not in one piece')
        elif block.language not in ('text', 'mermaid', 'console', 'diff'):
            yield at(chapter, place, f'a block of {block.language!r}')


@rule
def has_no_wide_blocks(chapter: Chapter) -> Iterator[str]:
    for block in chapter.blocks():
        widest = 76 if '.picture\n' in block.text else 100
        for line in block.text.splitlines() if block.language in ('text', 'mermaid', 'console') else ():
            if len(line) > widest:
                yield at(chapter, chapter.readme.find(line), f'{len(line)} columns, {widest} are allowed')


# Its prose ...........................................................................................

@rule
def computes_its_numbers(chapter: Chapter) -> Iterator[str]:
    """Each number of two digits or more, other than in code and links, is computed."""
    text = blank(NO_NUMBER, blank(CODE, prose(blank(LINK, chapter.readme))))
    computed = {match.end(1) for match in NUMBER.finditer(chapter.readme)}
    for match in DIGITS.finditer(text):
        if sum(map(str.isdigit, match[0])) > 1 and match.end() not in computed:
            yield at(chapter, match.start(), f'{match[0]} has no <!-- =EXPRESSION --> behind it')


def anchors(readme: str) -> set[str]:
    headings = re.findall(r'^#+ (.*)$', prose(readme), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@rule
def links_to_what_exists(chapter: Chapter) -> Iterator[str]:
    fenced = re.compile(r'^```.*?^```$|<!--.*?-->', re.MULTILINE | re.DOTALL)
    for match in LINK.finditer(blank(CODE, blank(fenced, chapter.readme))):
        path, _, anchor = match[1].partition('#')
        file = chapter.folder / path if path else chapter.folder / 'README.md'
        if not file.exists():
            yield at(chapter, match.start(), f'there is no {match[1]} in the project')
        elif anchor and anchor not in anchors(file.read_text(encoding='utf-8')):
            yield at(chapter, match.start(), f'there is no heading for {match[1]}')
    for match in FILE_NAME.finditer(prose(chapter.readme)):
        if not any((folder / match[1]).exists() for folder in (chapter.folder, ROOT, chapter.folder.parent)):
            yield at(chapter, match.start(), f'there is no file {match[1]}')


@rule
def says_how_to_run_it(chapter: Chapter) -> Iterator[str]:
    section = chapter.sections.get('Exercise', '')
    commands = (f'python3 -m lessons check {chapter.number}',
                f'python3 -m pytest lessons/{chapter.name}/test_exercise.py')
    yield from (at(chapter, start(chapter, 'Exercise'), f'does not say `{command}`')
                for command in commands if not re.search(re.escape(command) + r'(?!\w)', section))
    shown = {name: [step.command or '' for scene in chapter.scenes(name) for step in scene] for name in SECTIONS}
    for section, program in (('See it fail', 'see_it_fail'), ('What happened', 'picture')):
        exists = (chapter.folder / f'{program}.py').exists()
        if exists and f'python3 -m lessons.{chapter.name}.{program}' not in shown[section]:
            yield at(chapter, start(chapter, section), f'no transcript of {program}')
    if not shown['Run it']:
        yield at(chapter, start(chapter, 'Run it'), 'no transcript')


# Its terms ...........................................................................................

@rule
def has_a_table_of_terms(chapter: Chapter) -> Iterator[str]:
    begin = start(chapter, "In Netty's words")
    rows = re.findall(r'^\|.*$', chapter.sections.get("In Netty's words", ''), re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip('| ').split('|')] for row in rows]
    if cells[:1] != [['Netty', '中文', 'here', 'file']] or len(cells) < 3:
        yield at(chapter, begin, 'the table is | Netty | 中文 | here | file | and at least one term')
    for row in cells:
        if len(row) != 4 or not all(row) or '`' in row[0].strip('`'):
            yield at(chapter, begin, f'a row of the table is {row}')
    for term in chapter.terms:
        file = file_of(chapter, term.file)
        text = file.read_text(encoding='utf-8') if file.is_file() else ''
        names = [name.partition('(')[0].rpartition('.')[2] for name in re.split(r'[`, ]+', term.ours) if name]
        missing = [name for name in names if not whole_word(name).search(text)]
        if missing or not names:
            yield at(chapter, begin, f'{term.netty}: {term.file} has no {missing or "name"}')


@rule
def explains_its_terms(chapter: Chapter) -> Iterator[str]:
    """The first mention is bold or code; those above the first section, in headings and in tables do not count."""
    text = blank(NO_MENTION, prose(chapter.readme))
    marked = [match.span() for pattern in (CODE, EMPHASIS) for match in pattern.finditer(text)]
    for term in chapter.terms:
        first = whole_word(term.netty).search(text)
        if not first:
            yield at(chapter, 0, f'{term.netty} is in the table but nowhere in the text')
        elif not any(begin <= first.start() and first.end() <= end for begin, end in marked):
            yield at(chapter, first.start(), f'the first mention of {term.netty} is not **bold**')


@rule
def needs_what_was_introduced(chapter: Chapter) -> Iterator[str]:
    known = {term.netty: other.number for other in chapters() if other.number < chapter.number for term in other.terms}
    if '**You need**' not in chapter.sections.get('You will build', '') and chapter.number > 0:
        yield at(chapter, start(chapter, 'You will build'), 'has no line **You need**')
    yield from (at(chapter, chapter.readme.find('**You need**'), f'{need} is a term of no earlier chapter')
                for need in chapter.needs if need not in known)
    table = start(chapter, "In Netty's words")
    yield from (at(chapter, table, f'{term.netty} is a term of chapter {known[term.netty]}')
                for term in chapter.terms if term.netty in known)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """The sentences, list items and rows of a text, and where they begin."""
    begin = 0
    for end in SENTENCE_END.finditer(text):
        yield begin, text[begin:end.start()]
        begin = end.end()
    yield begin, text[begin:]


@rule
def uses_no_term_of_later_chapters(chapter: Chapter) -> Iterator[str]:
    later = [(other.number, term.netty, whole_word(term.netty))
             for other in chapters() if other.number > chapter.number for term in other.terms]
    for begin, sentence in sentences(prose(chapter.readme)):
        for number, term, pattern in later:
            found = pattern.search(sentence)
            if found and not re.search(rf'[Cc]hapters?\s+(\d+(,| and| to)\s+)*{number}\b', sentence):
                yield at(chapter, begin + found.start(), f'{term} comes in chapter {number}')


@rule
def names_what_is_there(chapter: Chapter) -> Iterator[str]:
    """In a table with a column "where in `FILE`", the names in that column stand in the file."""
    for table in re.finditer(r'^\|.*\| where in `([\w.]+)` \|\n((?:\|.*\n)+)', chapter.readme, re.MULTILINE):
        text = file_of(chapter, table[1]).read_text(encoding='utf-8')
        for row in re.finditer(r'\|([^|]*)\|$', table[2], re.MULTILINE):
            yield from (at(chapter, table.start(2) + row.start(), f'{table[1]} has no {name[2]}')
                        for name in CODE.finditer(row[1]) if not whole_word(name[2]).search(text))


# Its programs ........................................................................................

@rule
def has_programs_of_a_size(chapter: Chapter) -> Iterator[str]:
    for name, text, _ in sources(chapter):
        lines = text.splitlines()
        least, most = SIZES.get(name, (1, 199))
        if not least <= len(lines) <= most:
            yield f'{chapter.name}/{name}: {len(lines)} lines, {least} to {most} are allowed'
        yield from (f'{chapter.name}/{name}:{number}: {len(line)} columns'
                    for number, line in enumerate(lines, 1) if len(line) > 120)


def may_import(chapter: Chapter, name: str) -> set[str]:
    since = {'imclient': 0, 'imserver': 0, 'reactor': 9, 'store': 11}
    own = {top for top, first in since.items() if first and chapter.number >= first or first == chapter.number == 0}
    return {'protocol', '.'} | own | ({'pytest', 'lessons'} if name == 'test_exercise.py' else set())


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition('.')[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, '.' * node.level or node.module.partition('.')[0]


@rule
def imports_what_is_known(chapter: Chapter) -> Iterator[str]:
    for name, _, tree in sources(chapter):
        allowed = may_import(chapter, name) | sys.stdlib_module_names
        yield from (f'{chapter.name}/{name}:{line}: imports {module}'
                    for line, module in imports(tree) if module not in allowed)


@rule
def reads_no_keyboard(chapter: Chapter) -> Iterator[str]:
    """Windows cannot wait for the keyboard and for sockets at once, and a transcript has none."""
    for name, _, tree in sources(chapter):
        yield from (f'{chapter.name}/{name}:{node.lineno}: reads the keyboard' for node in ast.walk(tree)
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'input'
                    or isinstance(node, ast.Attribute) and ast.unparse(node) == 'sys.stdin')


@rule
def changes_little(chapter: Chapter) -> Iterator[str]:
    section = chapter.sections.get('What changed', '')
    if not chapter.programs or not chapter.before:
        return
    if chapter.changed_lines == 0 or chapter.changed_lines > MAX_CHANGE and chapter.number not in CHANGES_MORE:
        yield f'{chapter.name}: {chapter.changed_lines} lines changed since {chapter.before.name}, at most {MAX_CHANGE}'
    if '<!-- =changed -->' not in section or '\n```diff\n' not in section:
        yield at(chapter, start(chapter, 'What changed'), 'shows no <!-- =changed --> or no ```diff')


def signatures(body: list[ast.stmt], prefix: str = '') -> dict[str, str]:
    """The public names that are defined there, with the parameters of functions and the bases of classes."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found[prefix + node.name] = f'({ast.unparse(node.args)}) -> {node.returns and ast.unparse(node.returns)}'
        elif isinstance(node, ast.ClassDef):
            found[prefix + node.name] = f'({", ".join(map(ast.unparse, node.bases))})'
            found |= signatures(node.body, f'{prefix}{node.name}.')
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {prefix + target.id: '' for target in targets if isinstance(target, ast.Name)}
    return {name: about for name, about in found.items() if not re.search(r'(^|\.)_(?!_)', name)}


@rule
def solves_what_it_asks(chapter: Chapter) -> Iterator[str]:
    texts = {name: text for name, text, _ in sources(chapter)}
    stub, solution = texts.get('exercise.py', ''), texts.get('solution.py', '')
    if 'TODO' not in stub:
        yield f'{chapter.name}/exercise.py: has no TODO'
    if 'TODO' in solution:
        yield f'{chapter.name}/solution.py: has a TODO'
    asked, solved = (signatures(ast.parse(text).body) for text in (stub, solution))
    yield from (f'{chapter.name}: {name}{asked.get(name, " is missing")} in exercise.py, '
                f'{name}{solved.get(name, " is missing")} in solution.py'
                for name in sorted(asked.keys() | solved.keys()) if asked.get(name) != solved.get(name))


@rule
def sends_back_to_its_headings(chapter: Chapter) -> Iterator[str]:
    """What `expect` names to be read again is a heading of the README: written there, or a constant of the file."""
    headings = re.findall(r'^##+ (.*)$', prose(chapter.readme), re.MULTILINE)
    for tree in (tree for name, _, tree in sources(chapter) if name == 'test_exercise.py'):
        constants = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body
                     if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
                     and isinstance(node.value, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ('expect', 'expect_raises'):
                given = [*node.args, *(word.value for word in node.keywords if word.arg == 'read')][-1]
                read = given.value if isinstance(given, ast.Constant) else constants.get(ast.unparse(given))
                if read not in headings:
                    yield f'{chapter.name}/test_exercise.py:{node.lineno}: {read!r} is no heading of the README'
