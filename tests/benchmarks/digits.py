"""Write the built-in digits as IDX files: `python -m tests.benchmarks.digits FOLDER`.

A process of its own, because drawing them takes TensorFlow, which the systems that are
measured beside it should not have to import.
"""

import sys
from pathlib import Path

import numpy as np

from core.data import idx, synthetic


def main(folder: Path) -> None:
    """Four files: images and labels, of the training and the test set."""
    for split, digits in zip(idx.SPLITS, synthetic.draw(), strict=True):
        for kind, array in zip(("images", "labels"), digits, strict=True):
            header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
            path = folder / f"{split}-{kind}-idx{array.ndim}-ubyte"
            path.write_bytes(header + array.tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
