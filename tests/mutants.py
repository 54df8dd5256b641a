"""Put faults into `metarec`, one at a time, and show those that no test sees.

``make mutants``, or ``python tests/mutants.py --sample 150 --seed 0``: mutmut makes the
faults and runs, for each, the fast tests that reach the function; a sample of them is
drawn by seed and tried in the order of the draw, so that what a stopped run has seen is
a sample too. All of it happens in a copy of the tree, in a folder that is removed, or
in ``--folder``, where a run that was stopped goes on from its verdicts.

Of the tests that reach a function those of the cheapest file run first, and the first
that fails ends them. A fault that ends in a timeout is named and counted apart: a loop
without an end on this machine may be a slow test on a busy one.

mutmut knows more operators than stand below; those that are left out end in a crash
(``None`` for an argument) or change a message. Of a function that is decorated, of a
class and of a default it makes no fault: the last two are held by
``tests/test_defaults.py``.
"""

import argparse
import ast
import contextlib
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation import file_mutation, mutators
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name
from mutmut.workers import isolation
from mutmut.workers.isolation import ForkServerRunner

ROOT = Path(__file__).resolve().parents[1]
# What the fast tests of the package read.
PARTS = ("metarec", "tests", "assignments", "benchmarks", "pyproject.toml")
TWINS = ("sum mean", "min max", "any all", "argmin argmax", "zeros ones", "exp log")


def twin_of_a_call(node: cst.Call) -> Iterator[cst.CSTNode]:
    """``sum`` as ``mean`` and the like, as functions and as methods."""
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    for one, other in (pair.split() for pair in TWINS):
        if isinstance(name, cst.Name) and name.value in (one, other):
            twin = other if name.value == one else one
            yield node.with_deep_changes(name, value=twin)


def first_for_last(node: cst.UnaryOperation) -> Iterator[cst.CSTNode]:
    """The first axis, or element, in the place of the last; a sign that is gone."""
    if isinstance(node.operator, cst.Minus):
        last = isinstance(node.expression, cst.Integer)
        yield cst.Integer("0") if last else node.expression


def another_operator(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """``+`` as ``-``, ``>=`` as ``>``, ``and`` as ``or``, and so on."""
    if not isinstance(node, cst.UnaryOperation):
        yield from mutators.operator_swap_op(node)


def without_a_keyword(node: cst.Call) -> Iterator[cst.CSTNode]:
    """A call that says one thing less."""
    for at, argument in enumerate(node.args):
        if argument.keyword:
            yield node.with_changes(args=[*node.args[:at], *node.args[at + 1 :]])


def without_a_bound(node: cst.Call) -> Iterator[cst.CSTNode]:
    """A mask or a bound that does nothing."""
    if isinstance(node.func, cst.Attribute):
        name = node.func.attr.value
        if name == "where" and len(node.args) == 3:
            yield node.args[1].value
        elif name in ("clamp", "masked_fill", "clip", "abs", "sqrt", "detach"):
            yield node.func.value


def without_a_branch(node: cst.If) -> Iterator[cst.CSTNode]:
    """A guard, a branch or an early return that is never taken."""
    yield node.with_changes(test=cst.Name("False"))


OPERATORS = [
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.CSTNode, another_operator),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Call, twin_of_a_call),
    (cst.UnaryOperation, first_for_last),
    (cst.Call, without_a_keyword),
    (cst.Call, without_a_bound),
    (cst.If, without_a_branch),
]


def faults(path: Path) -> Iterable[str]:
    """Names of all faults of a module, those in a default apart."""
    made = file_mutation.mutate_file_contents(str(path), path.read_text("utf-8"))
    signature = {
        node.name: ast.dump(node.args)
        for node in ast.walk(ast.parse(made.code))
        if isinstance(node, ast.FunctionDef)
    }
    for name in made.mutant_names:
        whole = name.rpartition("__mutmut_")[0] + "__mutmut_orig"
        if signature[name] == signature[whole]:
            yield get_mutant_name(path, name)


def copy(folder: Path) -> None:
    """Copy what the tests need, without what they leave behind."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            left = shutil.ignore_patterns("__pycache__", ".*", "release", "_build")
            shutil.copytree(ROOT / part, folder / part, ignore=left)
        else:
            shutil.copy(ROOT / part, folder / part)


class CheapFirst(ForkServerRunner):
    """Order the tests of a fault by what they cost, file by file.

    Tests of one file stay together, since a fixture of the file is made anew otherwise.
    """

    def submit(self, name: str, tests: list[str], *limits: float) -> None:
        spent = state().duration_by_test
        of_file: dict[str, float] = defaultdict(float)
        for test in tests:
            of_file[test.partition("::")[0]] += spent[test]
        order = sorted(tests, key=lambda t: (of_file[t.partition("::")[0]], spent[t]))
        super().submit(name, order, *limits)

    def run_clean_tests(self, tests: Iterable[str]) -> int:
        """No second run without a fault: the one that timed the tests has passed."""
        return 0


def try_out(drawn: list[str], jobs: int) -> dict[str, str]:
    """Try what has no verdict yet, in the order of the draw; all the verdicts."""
    place = {name: at for at, name in enumerate(drawn)}
    mutmut.estimated_worst_case_time = place.__getitem__
    isolation.ForkServerRunner = CheapFirst
    left = [name for name in drawn if verdict(name) == "not checked"]
    if left:
        mutmut._run(left, jobs)
    return {name: verdict(name) for name in drawn}


def verdict(name: str) -> str:
    """What became of a fault: killed, survived, no tests, timeout, not checked."""
    with contextlib.suppress(FileNotFoundError):
        code = mutmut.find_mutant(name).exit_code_by_key[name]
        if code != 255:  # pytest itself gave up: nothing is known
            return status_by_exit_code[code]
    return "not checked"


def main() -> int:
    """Draw the sample, run it, and print each fault that no test has seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=150, help="number of faults")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of their paths")
    parser.add_argument("--jobs", type=int, default=1, help="faults tried at once")
    parser.add_argument("--folder", type=Path, help="where to work, kept")
    options = parser.parse_args()
    file_mutation.mutation_operators[:] = OPERATORS
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        if not (Path(folder) / "metarec").exists():
            copy(Path(folder))
        stack.enter_context(contextlib.chdir(folder))
        paths = sorted(filter(config().should_mutate, Path("metarec").rglob("*.py")))
        paths = [p for p in paths if any(part in str(p) for part in options.only)]
        every = [name for path in paths for name in faults(path)]
        drawn = random.Random(options.seed).sample(
            every, min(options.sample, len(every))
        )
        became = try_out(drawn, options.jobs)
        for name, what in became.items():
            if what != "killed":
                print(f"\n# {name}: {what}")
                print(mutmut.get_diff_for_mutant(name))
    counts = dict(Counter(became.values()))
    print(f"\n{len(drawn)} faults drawn from {len(every)}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
