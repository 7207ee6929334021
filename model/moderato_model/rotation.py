"""Orthogonal turns that spread what few channels hold over all of them, so that eight bits lose little (QuaRot,
arXiv:2404.00456; its outliers are described in arXiv:2208.07339).

The residual stream is turned as a whole: an RMS norm without weights does not see it, and the matrices on both sides take it
in. What stands between gate and down is turned by a Walsh-Hadamard transform that the operator computes on its way.
"""

import functools
import math

import numpy as np

# Channels so far apart are mixed: whole vectors of the operator, which then needs no shuffling.
LANES = 16
# Of the transform between gate and down: more mixes better and costs more.
LONGEST = 32


@functools.cache
def residual(width: int) -> np.ndarray:
    """Orthogonal [width, width]: a Hadamard matrix times a cosine transform for what is left of the width, signs at random."""
    power = _power_of_two(width)
    rest = width // power
    row, column = np.mgrid[0:rest, 0:rest]
    cosine = np.sqrt(2 / rest) * np.cos(np.pi * (column + 0.5) * row / rest)
    cosine[0] /= math.sqrt(2)
    signs = np.random.RandomState(0).choice([-1.0, 1.0], width)
    return np.kron(hadamard(power) / math.sqrt(power), cosine) * signs[:, None]


def mixed(width: int) -> int:
    """How many channels, LANES apart, the operator mixes in rows of this width; 1 where it cannot."""
    return min(LONGEST, _power_of_two(width // LANES)) if width % LANES == 0 else 1


def unmix(matrix: np.ndarray) -> np.ndarray:
    """[out, width] for rows that the operator has mixed: the transform undone, and its scale with it."""
    out, width = matrix.shape
    count = mixed(width)
    if count == 1:
        return matrix
    parts = matrix.reshape(out, -1, count, LANES)
    return np.einsum("obil,ij->objl", parts, hadamard(count) / count).reshape(out, width)


def hadamard(size: int) -> np.ndarray:
    """Entries 1 and -1, rows orthogonal; `size` is a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _power_of_two(number: int) -> int:
    return number & -number
