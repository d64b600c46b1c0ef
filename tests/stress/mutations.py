"""Mutated versions of source files, for mutants.py, which runs this with a Python that has mutmut (its operators).

    python tests/stress/mutations.py --number 300 --seed 0 FILE [FILE ...]

prints JSON lines: one with the number of possible mutants of every file, then one per mutant of the sample, which is
drawn from the files in proportion to these numbers. In each file the operators take turns: most possible mutants remove
an argument or replace it by None, and most of these end with an exception in whatever test runs the line. Left out are
docstrings and other prose, annotations, imports, decorators, ``__all__``, raised errors (what they say), and logging.
"""

import argparse
import ast
import collections
import difflib
import json
import random
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

# Calls whose arguments are left out: logging, messages of errors, names of types. mutmut leaves out len and isinstance.
UNTOUCHED_CALLS = m.Name('print_log') | m.Name('cast') | m.Name('TypeVar') | m.Name('len') | m.Name('isinstance')
UNTOUCHED_METHODS = m.Attribute(attr=m.Name('warning') | m.Name('info') | m.Name('warn') | m.Name('refuse'))
UNTOUCHED = {
    **dict.fromkeys((cst.Annotation, cst.Import, cst.ImportFrom, cst.Decorator, cst.Raise), None),
    cst.Expr: m.Expr(value=m.SimpleString() | m.ConcatenatedString()),
    cst.Call: m.Call(func=UNTOUCHED_CALLS | UNTOUCHED_METHODS),
    cst.Assign: m.Assign(targets=[m.AssignTarget(target=m.Name('__all__'))]),
    cst.If: m.If(test=m.Name('TYPE_CHECKING')),
    cst.SimpleString: m.SimpleString(value=m.MatchIfTrue(lambda value: ' ' in value)),
}


class Mutations(cst.CSTVisitor):
    """Collects (node, its replacement, name of the operator, first line, last line)."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self):
        super().__init__()
        self.found = []

    def on_visit(self, node):
        if type(node) in UNTOUCHED:
            pattern = UNTOUCHED[type(node)]  # None: all nodes of the type
            if pattern is None or m.matches(node, pattern):
                return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                span = self.get_metadata(PositionProvider, node)
                self.found += [
                    (node, new, operator.__name__.removeprefix('operator_'), span.start.line, span.end.line)
                    for new in operator(node)
                ]
        return True


class File:
    def __init__(self, name, seed):
        self.name, self.source = name, Path(name).read_text()
        wrapper = MetadataWrapper(cst.parse_module(self.source))
        visitor = Mutations()
        wrapper.visit(visitor)
        self.module, self.number = wrapper.module, len(visitor.found)
        candidates = list(enumerate(visitor.found))
        random.Random(f'{seed} {name}').shuffle(candidates)
        turns = collections.Counter()
        order = []
        for candidate in candidates:
            operator = candidate[1][2]
            order.append((turns[operator], candidate))
            turns[operator] += 1
        self.candidates = [candidate for _, candidate in sorted(order, key=lambda one: one[0])]  # keeps ties in order

    def draw(self, number):
        """Mutants that Python accepts and that differ from the source and from each other."""
        trees, drawn = {ast.dump(ast.parse(self.source))}, []
        for index, (node, new, operator, first, last) in self.candidates:
            if len(drawn) == number:
                break
            source = self.module.deep_replace(node, new).code
            try:
                tree = ast.dump(ast.parse(source))
                compile(source, self.name, 'exec')
            except (SyntaxError, ValueError):
                continue
            if tree not in trees:
                trees.add(tree)
                changed = difflib.unified_diff(self.source.splitlines(), source.splitlines(), n=0, lineterm='')
                drawn.append(
                    dict(
                        mutant=f'{self.name}:{first}:{operator}:{index}', file=self.name, operator=operator,
                        first=first, last=last,
                        diff=[line for line in changed if not line.startswith(('---', '+++', '@@'))],
                        source=source,
                    )
                )  # fmt: skip
        return drawn


def shares(sizes, number):
    """``number`` split in proportion to ``sizes``; the largest remainders are rounded up."""
    exact = {name: number * size / sum(sizes.values()) for name, size in sizes.items()}
    parts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: parts[name] - exact[name])[: number - sum(parts.values())]:
        parts[name] += 1
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+')
    parser.add_argument('--number', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    files = [File(name, args.seed) for name in args.files]
    sizes = {file.name: file.number for file in files}
    print(json.dumps(dict(possible=sizes)))
    parts = shares(sizes, args.number)
    for file in files:
        for mutant in file.draw(parts[file.name]):
            print(json.dumps(mutant))


if __name__ == '__main__':
    main()
