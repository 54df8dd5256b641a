"""Another processor, played: every product of matrices comes out a little different.

How a product rounds depends on the processor: the width of its vectors decides in which
order a sum is taken. A chapter must not print what hangs on that. IPython runs this
file when a kernel starts (``book/conftest.py`` names it in ``PYTHONSTARTUP``). From
then on each entry of each product, solution and factor of a matrix is moved by some ten
units in its last place, about 1e-6 of it in single precision. A draw is a processor:

    METAREC_DISTURB=1 python -m pytest book --nbval

As on a processor, the error is a function of what was computed: the same product has
the same error again, a product of small whole numbers has none, and no generator of
torch is asked. The kernels are replaced below autograd and `torch.func`, so gradients
and vmap pass through them as well.
"""

import os
import warnings

import torch

UNITS = 10  # of the last place
SHORT = 0b111111  # the last bits of a number, zero in one that is short
PRODUCTS = "mm bmm addmm baddbmm addmv addbmm"
SOLUTIONS = "_linalg_solve_ex linalg_inv_ex linalg_lu_solve linalg_solve_triangular"
FACTORS = "linalg_cholesky_ex"

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
_draw = torch.Generator().manual_seed(int(os.environ.get("METAREC_DISTURB", "0")))
_errors = torch.randn(1 << 12, generator=_draw, dtype=torch.float64)
_ERRORS = {kind: (torch.finfo(kind).eps * UNITS * _errors).to(kind) for kind in _BITS}


def disturb(result: torch.Tensor) -> torch.Tensor:
    """Move each entry, in place, by an error that its own bits choose."""
    if result.dtype in _BITS and result.numel():
        bits = result.contiguous().view(_BITS[result.dtype])
        # Multiplied by an odd number, the upper bits depend on all the lower ones.
        chosen = ((bits * 0x9E3779B1) >> 16) & (len(_errors) - 1)
        # A short number was not rounded: a sum of whole numbers is the same everywhere.
        rounded = (bits & SHORT) != 0
        moved = result + result * _ERRORS[result.dtype][chosen]
        torch.where(rounded, moved, result, out=result)
    return result


def _mv(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Multiply with a vector: its ``out=`` has no kernel of its own to call."""
    return torch.mm(matrix, vector[:, None])[:, 0]


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.mm(one[None], other[:, None])[0, 0]


def _disturbed(name: str) -> object:
    """Return a kernel that calls the true one, which ``out=`` still reaches."""
    packet = getattr(torch.ops.aten, name)
    outs = {
        overload: [one.name for one in overload._schema.arguments if one.is_out]
        for overload in map(packet.__getattr__, packet.overloads())
        if "dtype" not in overload._overloadname
    }
    ((true, names),) = ((key, names) for key, names in outs.items() if names)

    def kernel(first: torch.Tensor, *others: object, **options: object) -> object:
        # Beside the result there may be whole numbers, of rows and of failures.
        whole = {"pivots": torch.int32, "info": torch.int32}
        empty = {n: first.new_empty(0, dtype=whole.get(n, first.dtype)) for n in names}
        results = true(first, *others, **options, **empty)
        disturb(results[0] if isinstance(results, tuple) else results)
        return results

    return kernel


_library = torch.library.Library("aten", "IMPL")  # gone, it takes its kernels with it
with warnings.catch_warnings(action="ignore"):  # torch warns of a kernel replaced
    for _name in f"{PRODUCTS} {SOLUTIONS} {FACTORS}".split():
        _library.impl(_name, _disturbed(_name), "CPU")
    _library.impl("mv", _mv, "CPU")
    _library.impl("dot", _dot, "CPU")
