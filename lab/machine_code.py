"""Machine code from numba, without numba: to import it takes a worker longer than all the rest of its start.

numba compiles a function once, and what it makes for LLVM, a page of text, is kept in a file. From then on
llvmlite, the part of numba that is imported fast, makes that into code for the CPU at hand, in milliseconds.
"""

import contextlib
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from ctypes import CDLL, CFUNCTYPE, c_double, c_int64
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm

Function = Callable[[int], float]

_ENTRY = "entry_of_kept_code"
_LIBM = {"atan", "tan"}
_owners: list[object] = []  # of machine code: threads may run it until the process ends


def load(function: Function) -> Function:
    """Return `function` as compiled by numba; it runs without the GIL, on an integer of 64 bits.

    What numba made is kept for the next process, where there is a folder for it. It is made anew when the
    function, a version or the CPU has changed, or when the file is damaged.
    """
    key = _key(function)
    files = [folder / f"{function.__name__}-{key[:16]}.ll" for folder in _folders()]
    code = next(filter(None, (_read(file, key) for file in files)), None)
    if code is None:
        import numba

        compiled = numba.cfunc("float64(int64)")(function)
        code = compiled.inspect_llvm().replace(compiled.native_name, _ENTRY)
        if not _stands_alone(code):
            return _callable(compiled.address, owner=compiled)
        any(_write(file, f"{_seal(key, code)}\n{code}") for file in files)  # the first that can be written
    return _link(code)


def _key(function: Function) -> str:
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    what = (inspect.getsource(function), version("numba"), version("llvmlite"), *machine)
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _folders() -> Iterator[Path]:
    """Give the places where numba keeps what it compiles, in its order."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
        return
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # raised for a user who has no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scaling-lab"


def _read(file: Path, key: str) -> str | None:
    try:
        seal, _, code = file.read_text().partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return code if seal == _seal(key, code) else None


def _write(file: Path, text: str) -> bool:
    """Write the file, whole or not at all; say whether it could be."""
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return False
    return True


def _seal(key: str, code: str) -> str:
    return "; " + hashlib.sha256((key + code).encode()).hexdigest()


def _stands_alone(code: str) -> bool:
    """Whether it needs nothing but libm: LLVM ends the process over a symbol that it cannot find."""
    module = llvm.parse_assembly(code)
    symbols = {each.name for each in (*module.functions, *module.global_variables) if each.is_declaration}
    wanted = {name for name in symbols if not name.startswith("llvm.")}  # those are LLVM's own
    return wanted <= _LIBM and all(hasattr(CDLL(None), name) for name in wanted)


def _link(code: str) -> Function:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(code), target)
    engine.finalize_object()
    return _callable(engine.get_function_address(_ENTRY), owner=engine)


def _callable(address: int, owner: object) -> Function:
    _owners.append(owner)
    compiled = CFUNCTYPE(c_double, c_int64)(address)

    def call(argument: int) -> float:
        if argument.bit_length() > 63:  # ctypes would cut it off
            raise OverflowError(f"{argument} does not fit into 64 bits")
        return float(compiled(argument))

    return call
