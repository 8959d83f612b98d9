"""Checks source files that use TensorRT by the real bindings: unknown names, and what each call returns.

Run in a process of its own, with the module's name and the files as arguments: `tensorrt_bindings` imports over stub
libraries. Types are followed through assignments with the help of the signatures in the bindings' docstrings:
`builder = trt.Builder(...)` makes `builder` a Builder, whose `create_network` says that it returns an
INetworkDefinition, and so on.
"""

import ast
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

SIGNATURE = re.compile(r"(\w+)\((self|arg0)([^\n]*)\) -> ([^\n]+)")
PARAMETERS = {
    "config": "IBuilderConfig",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "parser": "OnnxParser",
}
"""Types of values that a function is given or that another file makes, by their names."""
CPP_NAMES = {"nvonnxparser::IParserError": "ParserError", "nvinfer1::IRuntimeCache": "IRuntimeCache"}


class Walk:
    """Follows TensorRT's types through one file."""

    def __init__(self, trt: Any, source: str) -> None:
        self.trt = trt
        self.tree = ast.parse(source)
        self.types: dict[str, Any] = {"trt": trt}
        given = {
            argument.arg for node in ast.walk(self.tree) if isinstance(node, ast.arguments) for argument in node.args
        }
        for name in PARAMETERS.keys() & (given | {"context"}):
            self.types[name] = ("object", getattr(trt, PARAMETERS[name]))
        self.problems: set[str] = set()
        self.returns: dict[str, list[str]] = {}

    def run(self) -> None:
        for _ in range(6):  # a type may depend on one that is assigned further down
            self.problems = set()
            for node in ast.walk(self.tree):
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    found = self.infer(node.value)
                    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                        if found is not None and isinstance(target, ast.Name | ast.Attribute):
                            self.types[self.name(target)] = found
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Call):
                self.infer(node)
            elif isinstance(node, ast.ClassDef):
                self.check_overrides(node)

    @staticmethod
    def name(target: ast.Name | ast.Attribute) -> str:
        return target.id if isinstance(target, ast.Name) else target.attr

    def infer(self, node: ast.AST) -> Any:
        """The module, ("class", C), ("object", C), ("method", C, name), or None for what is not TensorRT's."""
        if isinstance(node, ast.IfExp):
            return self.infer(node.body)
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        return None

    def attribute(self, node: ast.Attribute) -> Any:
        base = self.infer(node.value)
        if base is None:
            return self.types.get(node.attr)
        owner = base if base is self.trt else base[1]
        member = getattr(owner, node.attr, None)
        if member is None or (base is not self.trt and base[0] == "method"):
            self.problems.add(f"{getattr(owner, '__name__', owner)} has no {node.attr} (line {node.lineno})")
            return None
        if isinstance(member, type):
            return ("class", member)
        if isinstance(member, property):
            return self.of_type((member.fget.__doc__ or "").split("->")[-1].strip())
        return ("method", owner, node.attr) if callable(member) and base is not self.trt else None

    def call(self, node: ast.Call) -> Any:
        function = self.infer(node.func)
        if function is None or function is self.trt or function[0] == "object":
            return None
        owner, name = function[1], "__init__" if function[0] == "class" else function[2]
        unbound = function[0] == "method" and isinstance(node.func, ast.Attribute) and self.is_class(node.func.value)
        signatures = SIGNATURE.findall(getattr(owner, name).__doc__ or "")
        given = len(node.args) - unbound
        keywords = {keyword.arg for keyword in node.keywords}
        fitting = [returned for _, _, parameters, returned in signatures if self.fits(parameters, given, keywords)]
        if signatures and not fitting:
            self.problems.add(f"{owner.__name__}.{name} does not take these arguments (line {node.lineno})")
            return None
        if function[0] == "class":
            return ("object", owner)
        self.returns[f"{owner.__name__}.{name}"] = sorted({self.plain(returned) for returned in fitting})
        return self.of_type(fitting[0]) if fitting else None

    def is_class(self, node: ast.AST) -> bool:
        found = self.infer(node)
        return found is not None and found is not self.trt and found[0] == "class"

    @staticmethod
    def fits(parameters: str, given: int, keywords: set[str | None]) -> bool:
        names = re.findall(r", (\w+): ", re.sub(r"\[[^\]]*\]", "", parameters))  # after self
        required = len(names) - len(re.findall(r" = ", parameters))
        return required <= given + len(keywords) <= len(names) and keywords <= set(names)

    @staticmethod
    def plain(returned: str) -> str:
        returned = CPP_NAMES.get(returned.strip(), returned.strip())
        return re.sub(r"tensorrt\w*_bindings\.tensorrt\w*\.", "", returned)

    def of_type(self, returned: str) -> Any:
        found = getattr(self.trt, self.plain(returned), None)
        return ("object", found) if isinstance(found, type) else None

    def check_overrides(self, node: ast.ClassDef) -> None:
        """Methods that TensorRT calls must have the names and parameters of its own."""
        for base in node.bases:
            found = self.infer(base)
            if found is None:
                continue
            for method in node.body:
                if not isinstance(method, ast.FunctionDef) or method.name == "__init__" or method.name == "reason":
                    continue
                documented = getattr(found[1], method.name, None)
                if documented is None:
                    self.problems.add(f"{found[1].__name__} has no {method.name} (line {method.lineno})")
                    continue
                parameters = SIGNATURE.search(documented.__doc__ or "")
                names = re.findall(r", (\w+): ", parameters[3]) if parameters else []
                mine = [argument.arg for argument in method.args.args[1:]]
                if names != mine:
                    self.problems.add(f"{found[1].__name__}.{method.name} has parameters {names}, not {mine}")


if __name__ == "__main__":
    bindings = import_module(sys.argv[1])
    result: dict[str, Any] = {"version": bindings.__version__, "problems": {}, "returns": {}}
    for path in sys.argv[2:]:
        walk = Walk(bindings, Path(path).read_text(encoding="utf-8"))
        walk.run()
        result["problems"][path] = sorted(walk.problems)
        result["returns"] |= walk.returns
    print(json.dumps(result))
