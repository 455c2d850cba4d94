"""Translator of formulas.py to JavaScript, with which the report's page recomputes costs by the same arithmetic.

`make formulas` writes the script to report/assets/formulas.js. The formulas may use arithmetic, comparisons, `is None`,
conditional expressions, `if`, local variables and the functions in `_FUNCTIONS`; anything else raises ValueError.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter

from harness.pricing import formulas

_HEADER = """\
"use strict";
// Generated from harness/pricing/formulas.py by `make formulas`: edit that file. Each function takes one object, with
// the names of the Python arguments.
const formulas = (() => {
  const isKnown = (value) => value !== null && value !== undefined;
"""
_FUNCTIONS = {
    "max": "Math.max",
    "math.ceil": "Math.ceil",
    "math.exp": "Math.exp",
    "math.expm1": "Math.expm1",
    "math.log1p": "Math.log1p",
    "math.isfinite": "Number.isFinite",
}
_OPERATORS: dict[type[ast.AST], tuple[str, int]] = {
    ast.Lt: ("<", 1),
    ast.LtE: ("<=", 1),
    ast.Gt: (">", 1),
    ast.GtE: (">=", 1),
    ast.Eq: ("===", 1),
    ast.Add: ("+", 2),
    ast.Sub: ("-", 2),
    ast.Mult: ("*", 3),
    ast.Div: ("/", 3),
}
_HIGHEST = 4


def formulas_script(source: str | None = None) -> str:
    """Return the text of formulas.js.

    Args:
        source: Python source of the formulas; formulas.py if None.

    Raises:
        ValueError: If the source uses anything that has no translation.
    """
    module = ast.parse(source or inspect.getsource(formulas))
    constants = [node for node in module.body if isinstance(node, ast.Assign)]
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    lines = [line for node in [*constants, *functions] for line in _statement(node, frozenset())]
    names = ",\n".join(f"    {node.name}" for node in functions)
    body = "\n".join(f"  {line}" for line in lines)
    return f"{_HEADER}{body}\n  return {{\n{names},\n  }};\n}})();\n"


def _statement(node: ast.stmt, declared: frozenset[str]) -> list[str]:
    """Translate a statement to lines; `declared` holds the variables that are already declared with `let`."""
    match node:
        case ast.FunctionDef(name=name, args=args, body=body):
            targets = Counter(
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
            variables = frozenset(target for target, count in targets.items() if count > 1)
            declaration = [f"  let {', '.join(sorted(variables))};"] if variables else []
            head = f"const {name} = ({{ {', '.join(argument.arg for argument in args.args)} }}) =>"
            match body[1:]:  # without the docstring
                case [ast.Return(value=ast.expr() as value)]:
                    return [f"{head} {_expression(value)};"]
            return [f"{head} {{", *declaration, *_block(body[1:], variables), "};"]
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return [f"{'' if name in declared else 'const '}{name} = {_expression(value)};"]
        case ast.Return(value=ast.expr() as value):
            return [f"return {_expression(value)};"]
        case ast.If(test=test, body=body, orelse=orelse):
            otherwise = ["} else {", *_block(orelse, declared)] if orelse else []
            return [f"if ({_expression(test)}) {{", *_block(body, declared), *otherwise, "}"]
        case ast.Try(body=body, handlers=[ast.ExceptHandler(type=ast.Name(id="OverflowError"))], finalbody=[]):
            # No `try` is needed: JavaScript's overflow gives Infinity, which the formula's `isfinite` detects.
            return [line for inner in body for line in _statement(inner, declared)]
    raise ValueError(f"formulas.py line {node.lineno}: no translation of {ast.unparse(node)}")


def _block(body: list[ast.stmt], declared: frozenset[str]) -> list[str]:
    return [f"  {line}" for node in body for line in _statement(node, declared)]


def _expression(node: ast.expr, precedence: int = 0) -> str:
    """Translate an expression; put it in parentheses if its operator's precedence is lower than `precedence`."""
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=int() | float() as number):
            return repr(number).removesuffix(".0")
        case ast.Name(id=name):
            return name
        case ast.Call(func=function, args=args) if ast.unparse(function) in _FUNCTIONS:
            return f"{_FUNCTIONS[ast.unparse(function)]}({', '.join(map(_expression, args))})"
        case ast.UnaryOp(op=ast.USub() | ast.Not() as operator, operand=operand):
            return f"{'-' if isinstance(operator, ast.USub) else '!'}{_expression(operand, _HIGHEST)}"
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=None)]):
            return f"!isKnown({_expression(left)})"
    text, own = _infix(node)
    return text if own >= precedence else f"({text})"


def _infix(node: ast.expr) -> tuple[str, int]:
    """Translate an expression with an infix operator; also return the operator's precedence."""
    match node:
        case ast.BoolOp(op=ast.Or(), values=values):
            return " || ".join(_expression(value, 1) for value in values), 0
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"{_expression(test, 1)} ? {_expression(body, 1)} : {_expression(orelse, 1)}", 0
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in _OPERATORS:
            sign, own = _OPERATORS[type(operator)]
            return f"{_expression(left, own + 1)} {sign} {_expression(right, own + 1)}", own
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            sign, own = _OPERATORS[type(operator)]
            return f"{_expression(left, own)} {sign} {_expression(right, own + 1)}", own
    raise ValueError(f"formulas.py line {node.lineno}: no translation of {ast.unparse(node)}")


if __name__ == "__main__":
    sys.stdout.write(formulas_script())
