"The rooms of the house in one order: imports run downward only, between rooms and between files."

import ast

from conftest import ROOT

# From the ground up. A module imports from its own room and from the rooms before it.
ROOMS = (
    "files threads config conventions geometry body synth mesh metrics fitting photo nets data back runs viz training "
    "build_dataset train_normal train_full train_hallucinate train_diffusion fit hallucinate reconstruct "
    "evaluate app tools testing"
).split()
STAGES = (
    "build_dataset train_normal train_full train_hallucinate train_diffusion fit hallucinate reconstruct evaluate"
).split()
KEPT = {"surface": "mesh", "run": "runs", "sith": "runs"}  # names that scripts outside rely on
PACKAGE = ROOT / "recon"


def modules():
    return sorted(
        path for path in PACKAGE.rglob("*.py") if path.name not in ("_modidx.py",) and path != PACKAGE / "__init__.py"
    )


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module):
    name = module.split(".")[1] if "." in module else "__init__"
    return KEPT.get(name, name)


def imported(path):
    "Modules of recon that a file imports anywhere in it."
    package = list(path.relative_to(ROOT).with_suffix("").parts)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "recon")
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join(base + ([node.module] if node.module else []))
            if target.split(".")[0] != "recon":
                continue
            for alias in node.names:
                inner = f"{target}.{alias.name}"
                yield inner if (ROOT / inner.replace(".", "/")).with_suffix(".py").exists() else target


def test_every_module_has_a_room():
    assert {room(dotted(path)) for path in modules()} <= set(ROOMS)


def test_imports_run_downward_between_rooms():
    upward = [
        f"{dotted(path)} imports {target}"
        for path in modules()
        for target in imported(path)
        if target != "recon" and ROOMS.index(room(target)) > ROOMS.index(room(dotted(path)))
    ]
    assert not upward


def test_no_stage_imports_another():
    crossing = [
        f"{dotted(path)} imports {target}"
        for path in modules()
        if room(dotted(path)) in STAGES
        for target in imported(path)
        if target != "recon" and room(target) in STAGES and room(target) != room(dotted(path))
    ]
    assert not crossing


def test_no_cycle_between_files():
    graph = {dotted(path): set(imported(path)) - {"recon", dotted(path)} for path in modules()}
    state = {}

    def visit(module, trail):
        if state.get(module) == "done":
            return
        assert state.get(module) != "open", f"a cycle: {' -> '.join([*trail, module])}"
        state[module] = "open"
        for target in graph.get(module, ()):
            visit(target, [*trail, module])
        state[module] = "done"

    for module in graph:
        visit(module, [])
