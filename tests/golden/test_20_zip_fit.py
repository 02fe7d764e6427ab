"""ZIP-FIT against sizes, similarities and orders that the authors' class computed."""

import re
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe_plugins.selection.zip_fit._compressors import COMPRESSORS

FILE = understood(golden("20-zip-fit"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(FILE["inputs"], "source", "source_domain", "target", "target_domain")
TOLERANCE = understood(
    FILE["tolerance"], "size_same_zlib", "alignment_abs_same_zlib", "alignment_abs_other_zlib", "note"
)


def opened(case: str, targets: list[str]) -> Any:
    compressor, _, level = case.rpartition("-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about gzip's level 0
        return pickaxe.scorer("zip-fit", compressor=compressor, level=int(level)).fit(targets)


def same_build(case: str) -> bool:
    """Whether this machine has the library version that the file names; a file without one has no excuse."""
    name = case.rpartition("-")[0]
    if name in ("gzip", "zlib"):
        named, here = re.search(r"zlib ([\w.]+\w)", FILE["how"]), zlib.ZLIB_RUNTIME_VERSION
    else:
        here = COMPRESSORS[name](COMPRESSORS[name].default).library.removeprefix(f"{name} ")
        named = re.search(rf"{name} ([\w.]+\w)", FILE["how"])
        if name == "lz4":  # the file names the Python package
            import lz4

            here = lz4.__version__
    return named is None or named[1] == here


def ranks(values: Any) -> np.ndarray:
    """Average ranks, as Spearman's correlation wants them."""
    array = np.asarray(values)
    return (array[:, None] > array).sum(1) + ((array[:, None] == array).sum(1) - 1) / 2


@pytest.mark.parametrize("case", FILE["expected"])
def test_sizes_alignments_and_order(case: str) -> None:
    expected = understood(
        FILE["expected"][case], "size_source", "size_target", "pair_similarity_row0", "alignment", "order_best_first"
    )
    scores = opened(case, INPUTS["target"]).score(INPUTS["source"])
    first_row = [
        opened(case, [target]).score(INPUTS["source"][:1])["alignment"][0]
        for target in INPUTS["target"][: len(expected["pair_similarity_row0"])]
    ]
    exact = same_build(case)
    within = TOLERANCE["alignment_abs_same_zlib" if exact else "alignment_abs_other_zlib"]
    np.testing.assert_allclose(scores["alignment"], expected["alignment"], rtol=0, atol=within)
    np.testing.assert_allclose(first_row, expected["pair_similarity_row0"], rtol=0, atol=within)
    if not exact:
        correlation = np.corrcoef(ranks(scores["alignment"]), ranks(expected["alignment"]))[0, 1]
        assert correlation > 0.95
        return
    compressor, _, level = case.rpartition("-")
    size = COMPRESSORS[compressor](int(level)).sizer()
    for texts, sizes in ((INPUTS["source"], expected["size_source"]), (INPUTS["target"], expected["size_target"])):
        found = [size(text.encode()) for text in texts]
        np.testing.assert_allclose(found, sizes, rtol=0, atol=TOLERANCE["size_same_zlib"])
    order = np.argsort(-scores["alignment"].round(12), kind="stable")  # sums in another order differ by 1e-16
    assert order.tolist() == expected["order_best_first"]
