"""House rules that no other tool checks: `python tools/check_house.py`, part of `make check`.

Sizes of files, functions and constructors; machine paths and big files in what git tracks;
links between the Markdown files.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "leandetr"
FILE_LINES, FUNCTION_LINES, CONSTRUCTOR_ARGUMENTS, POSITIONAL = 300, 40, 7, 2
TRACKED_BYTES = 3_000_000
MODEL_BYTES = 11_000_000
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(work|tmp|root|home)/\w")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".sh", ""}


def main() -> int:
    """Print every broken rule; 1 if there is any."""
    problems = [*sizes(), *tracked_files(), *links()]
    for problem in problems:
        print(problem)
    print(f"house: {len(problems)} problems" if problems else "house: in order")
    return 1 if problems else 0


def sizes() -> Iterator[str]:
    """Files, functions and constructors of the package that are too long."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{name}: {lines} lines, at most {FILE_LINES}; split it by idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from (f"{name}:{node.lineno}: {problem}" for problem in _function(node))
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":  # errors are sentences
                yield from (f"{name}:{node.lineno}: {problem}" for problem in _constructor(node))


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """What is too much about one function; its length is counted without the docstring."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        said = node.body[0]
        assert said.end_lineno is not None
        lines -= said.end_lineno - said.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"{node.name} has {lines} lines, at most {FUNCTION_LINES}"


def _constructor(node: ast.ClassDef) -> Iterator[str]:
    """What is too much about the constructor of a class."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            positional = len(method.args.args) - 1
            count = positional + len(method.args.kwonlyargs)
            if count > CONSTRUCTOR_ARGUMENTS:
                yield f"{node.name} takes {count} arguments, at most {CONSTRUCTOR_ARGUMENTS}"
            if positional > POSITIONAL:
                yield f"{node.name}: arguments after number {POSITIONAL} must be keyword-only"


def tracked_files() -> Iterator[str]:
    """Machine paths in text and files that are too big, among all that git tracks."""
    for name in _tracked():
        path = ROOT / name
        limit = MODEL_BYTES if name.startswith("src/leandetr/zoo/") else TRACKED_BYTES
        size = path.stat().st_size
        if size > limit:
            yield f"{name}: {size} bytes, at most {limit}"
        if path.suffix in TEXT and name != "tools/check_house.py":
            for number, line in enumerate(_lines(path), start=1):
                if found := MACHINE_PATH.search(line):
                    yield f"{name}:{number}: path of a machine: {found.group()}..."


def links() -> Iterator[str]:
    """Links between Markdown files that lead nowhere."""
    for name in _tracked():
        if not name.endswith(".md"):
            continue
        for target in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
            local = target.partition("#")[0]
            if local and "://" not in target and not (ROOT / name).parent.joinpath(local).exists():
                yield f"{name}: link to {target}, which does not exist"


def _tracked() -> list[str]:
    """Names of all tracked files that exist; nothing outside a git checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    return [name for name in names if (ROOT / name).is_file()]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


if __name__ == "__main__":
    sys.exit(main())
