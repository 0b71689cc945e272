r"""Make the tables of our sources again, row by row, or print them as they stand.

    python benchmarks/papers --data CIFAR_FOLDER --cifar100 CIFAR100_FOLDER --models MODELS_FOLDER --scale short

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y); CIFAR-100 is a folder with train/CLASS/ and
test/CLASS/; the models folder has the published ResNet-56, which the one-shot rows alone need. ``--scale full`` runs
the length of the papers, ``short`` what two cores finish in days, ``brief`` what they finish in hours, on 10,000
pictures, ``smoke`` seconds a row on the digits, ``oneshot`` the rows without training. A row that is done is skipped;
one that was killed goes on; ``--only`` picks rows by a part of their name; ``--list`` names them; ``--show`` prints the
tables of what rows there are, beside what was published. Everything is chosen on validation pictures cut from train;
each row reads the test set once a network, in its last step.
"""

from __future__ import annotations

from pathlib import Path

import torch

from papers import oneshot
from papers.render import tables_of
from papers.scale import SCALES
from papers.tables import rows
from rows import arguments, done, fill


def main() -> None:
    """Fill the rows of a scale, or list or show them."""
    parser = arguments(__doc__, "benchmarks/results/papers")
    for flag in ("--data", "--cifar100", "--models"):
        parser.add_argument(flag, type=Path)
    parser.add_argument("--scale", choices=[*SCALES, "oneshot"], default="short")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--list", action="store_true", help="name the rows, and say which are done")
    parser.add_argument("--show", action="store_true", help="print the tables as Markdown")
    where = parser.parse_args()
    torch.set_num_threads(where.threads)
    found = list(oneshot.rows(where) if where.scale == "oneshot" else rows(SCALES[where.scale], where))
    folder = where.out / where.scale
    if where.list:
        for name, _ in found:
            if where.only in name:
                print(f"{'done ' if done(folder / f'{name}.json') else '     '}{name}")
    elif where.show:
        print(tables_of(folder))
    else:
        fill(folder, found, where.only)
