"""Rules of this repository that no linter knows, as tests over its own sources."""

from __future__ import annotations

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "model", "stress")

MODULE_LINES = 600
FUNCTION_LINES = 60

# Real threads and locks: the engine, what guards an exploration from outside of any schedule, and
# what takes the place of them.
RAW_THREADS = (
    "harness/engine/",
    "harness/patch/",
    "harness/search/free.py",
    "harness/search/stage.py",
)
# Where the order of a set could reach a choice, a finding or a token.
ORDERED = (
    "harness/engine/",
    "harness/strategies/",
    "harness/lockorder/",
    "harness/patch/",
    "harness/search/",
)
# Consumers to whom the order of what they consume makes no difference.
ORDER_FREE = frozenset(
    {"all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum", "update"}
)
SETS = frozenset({"set", "frozenset"})


def modules(*folders: str) -> list[Path]:
    """All Python files below some folders of the repository, in order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(*folders: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", modules(*folders), ids=shown)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    """``time.sleep`` for the expression of that form; empty for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every call by a plain or dotted name, but for hash() in ``__hash__``."""
    within = {
        inner
        for function in functions(tree)
        if function.name == "__hash__"
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) and node not in within:
            yield node.lineno, dotted(node.func)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# -- determinism ----------------------------------------------------------------------------------


def forbidden(name: str) -> str:
    """Why a call has no place in code that schedules depend on; empty where it has."""
    if name in ("hash", "id"):
        return "differs between runs"
    if name == "time.sleep":
        return "waits on the wall clock"
    if name == "print":
        return "printing is for stress"
    if name.startswith("random.") and name != "random.Random":
        return "draws from a generator that everybody shares"
    return ""


@each("harness", "model")
def test_nothing_that_differs_between_runs_is_called(path: Path) -> None:
    found = [
        f"{shown(path)}:{line}: {name}() {forbidden(name)}"
        for line, name in calls(parsed(path))
        if forbidden(name)
    ]

    assert not found, "\n".join(found)


@each("harness", "model")
def test_real_threads_are_the_engines_alone(path: Path) -> None:
    imported = [
        f"{shown(path)}:{node.lineno}"
        for node in ast.walk(parsed(path))
        if (
            isinstance(node, ast.Import)
            and any(alias.name in ("threading", "_thread") for alias in node.names)
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in ("threading", "_thread")
            and not all(alias.name.endswith("Error") for alias in node.names)
        )
    ]

    assert not imported or shown(path).startswith(RAW_THREADS), "\n".join(imported)


def known_sets(tree: ast.AST) -> frozenset[str]:
    """Names and attributes that the file itself declares to be sets."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and is_set(node.annotation, frozenset()):
            names.add(dotted(node.target).rpartition(".")[2])
        elif isinstance(node, ast.Assign) and is_set(node.value, frozenset()):
            names |= {dotted(target).rpartition(".")[2] for target in node.targets}
        elif isinstance(node, ast.arg) and node.annotation is not None:
            if is_set(node.annotation, frozenset()):
                names.add(node.arg)
    return frozenset(names - {""})


def is_set(node: ast.expr, known: frozenset[str]) -> bool:
    """Whether an expression (or an annotation) is a set as far as its file tells."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Subscript):
        return dotted(node.value) in SETS
    if isinstance(node, ast.Call):
        return dotted(node.func) in SETS
    if isinstance(node, ast.BinOp):
        return is_set(node.left, known) or is_set(node.right, known)
    name = dotted(node)
    return name in SETS or name.rpartition(".")[2] in known


def unordered(tree: ast.AST) -> Iterator[int]:
    """Lines that walk through a set in its own order, and keep that order."""
    known = known_sets(tree)
    free: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
            if name in ORDER_FREE:
                free |= set(node.args)
            elif name in ("list", "tuple", "enumerate", "iter", "join", "extend"):
                if any(is_set(arg, known) for arg in node.args):
                    yield node.lineno
        elif isinstance(node, ast.For) and is_set(node.iter, known):
            yield node.lineno
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp) and node not in free:
            if any(is_set(generator.iter, known) for generator in node.generators):
                yield node.lineno


@each(*ORDERED)
def test_the_order_of_a_set_reaches_nothing(path: Path) -> None:
    found = [f"{shown(path)}:{line}: walks a set; sort it" for line in unordered(parsed(path))]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("for x in {1, 2}: pass", [1]),
        ("s = set()\nl = [x for x in s]", [2]),
        ("class A:\n  a: set[int]\n  def f(self):\n    return list(self.a)", [4]),
        ("def f(s: frozenset[str]): return ', '.join(s | {'a'})", [1]),
        ("s = {1}\nl = sorted(x for x in s)\nm = max(s)\nn = {x for x in s}", []),
        ("for x in sorted({1, 2}): pass", []),
    ],
)
def test_the_rule_on_sets_sees_what_it_should(code: str, lines: list[int]) -> None:
    assert list(unordered(ast.parse(code))) == lines


# -- size -----------------------------------------------------------------------------------------


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's statements; signature and docstring are as long as readers need."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@each(*PACKAGES)
def test_a_module_and_its_functions_can_be_read_in_one_go(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [
        f"{shown(path)}:{function.lineno}: {function.name} has {body_lines(function)} lines"
        for function in functions(ast.parse(text))
        if body_lines(function) > FUNCTION_LINES
    ]
    length = len(text.splitlines())
    if length > MODULE_LINES:
        found.append(f"{shown(path)} has {length} lines")

    assert not found, "\n".join(found)


# -- words ----------------------------------------------------------------------------------------


def texts() -> list[Path]:
    """Every text file that belongs to the repository."""
    kept = []
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".gitignore") for part in inside)
        if hidden or "__pycache__" in inside or inside[0] in ("build", "dist", "venv"):
            continue
        if path.suffix in (".py", ".md", ".toml", ".ini", ".txt", ".json") or inside[0] == ".ci":
            if path.is_file():
                kept.append(path)
    return kept


MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|work|Users|opt|tmp)/\w"
    r"|\b[A-Z]:\\\\?Users\b|pypi\.org|pythonhosted\.org|registry\.npmjs",
)


def test_no_path_of_a_machine_and_no_registry_is_named() -> None:
    found = [
        f"{shown(path)}:{number}: {line.strip()[:80]}"
        for path in texts()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE.search(line)
    ]

    assert not found, "\n".join(found)


# -- documents ------------------------------------------------------------------------------------


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Lines of the README's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", readme(), flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def tox() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "tox.ini", encoding="utf-8")
    return config


def test_the_readme_gives_two_commands_first_and_ci_runs_them() -> None:
    main, test = commands()[:2]
    ran = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert main == "python -m pip install tox && python -m tox -e stress"
    assert test == "python -m pip install tox && python -m tox"
    for command in (main, test):
        for part in command.split(" && "):
            assert re.search(
                rf"{re.escape(part).replace('install', 'install(?: --quiet)?')}$", ran, re.MULTILINE
            )


DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "tests/README.md",
    ".ci/run",
    ".github/workflows/ci.yml",
    "docs/howto/ci.md",
)


def test_every_tox_environment_named_anywhere_exists() -> None:
    config = tox()
    known = {section.removeprefix("testenv:") for section in config.sections()}
    known |= {name.strip() for name in config["tox"]["env_list"].split(",")}
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"tox -e ([\w,]+)", text))

        assert {env for names in named for env in names.split(",")} <= known, document


def test_every_tox_environment_says_what_it_is_for() -> None:
    config = tox()

    assert all(
        config[section].get("description")
        for section in config.sections()
        if section.startswith("testenv")
    )


def test_every_module_has_a_line_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [
        shown(path)
        for path in modules(*PACKAGES)
        if path.name not in ("__init__.py", "__main__.py") and f"`{shown(path)}`" not in text
    ]

    assert not missing, "\n".join(missing)


def test_the_architecture_names_no_module_that_is_gone() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:harness|model|stress)/[\w/]+\.py)`", text))

    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_every_dependency_has_a_row_that_argues_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    wanted = [
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *groups["test"],
        *groups["unmodified"],
        *groups["lint"],
        *groups["bench"],
        *groups["browser"],
        *groups["postgres"],
        *groups["docs"],
    ]
    names = {re.split(r"[<>=\[;]", one)[0] for one in wanted if isinstance(one, str)}
    rows = {
        name: line
        for line in readme().splitlines()
        for name in re.findall(r"`([\w.-]+)`", line.split("|")[1] if line.startswith("|") else "")
    }

    assert names <= rows.keys(), names - rows.keys()
    assert all(len(rows[name]) > 30 for name in names)
