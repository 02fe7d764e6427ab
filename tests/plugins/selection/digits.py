"""Active learning on the 8 x 8 digits that scikit-learn brings; class vectors start from noisy prototypes."""

from __future__ import annotations

import numpy as np

import pickaxe
from pickaxe import Item


class Digits:
    """One split of the digits, drawn by the seed."""

    def __init__(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        x, self.y = load_digits(return_X_y=True)
        x = x - x.mean(axis=0)
        self.x = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.rng, self.seed = np.random.default_rng(seed), seed
        order = self.rng.permutation(len(x))
        self.test, self.pool = order[:500], order[500:]
        prototypes = np.stack([self.x[self.pool][self.y[self.pool] == k].mean(axis=0) for k in range(10)])
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
        self.start = prototypes + 2.7 / 8 * self.rng.normal(size=prototypes.shape)

    def run(self, how: str) -> tuple[float, float]:
        """(accuracy, imbalance) after 8 rounds of 10 labels."""
        names = [str(k) for k in range(10)]
        vectors = [[row] for row in self.start.tolist()]
        scorer = pickaxe.scorer(
            "pcb", classes=names, class_vectors=vectors, logit_scale=10, lr=0.05, epochs=100, gamma=0.1, n_query=10
        )
        labelled = list(self.pool[np.random.default_rng(self.seed).permutation(len(self.pool))[:10]])
        while True:
            taught = [Item(f"{at:04}", fields={"embedding": self.x[at], "label": str(self.y[at])}) for at in labelled]
            handle = scorer.fit(taught, seed=self.seed)
            if len(labelled) == 80:
                break
            rest = np.setdiff1d(self.pool, labelled)
            pool = [Item(f"{at:04}", fields={"embedding": self.x[at]}) for at in rest]
            scores = handle.score([*taught, *pool], seed=self.seed)
            own = {"random": self.rng.random(len(rest)), "entropy": scores["entropy"][len(taught) :]}
            labelled += list(rest[np.argsort(-own.get(how, scores["priority"][len(taught) :]))[:10]])
        matrix = np.array(handle.artifact.read_array("class_matrix.npy"))
        accuracy = ((self.x[self.test] @ matrix.T).argmax(axis=1) == self.y[self.test]).mean()
        return float(accuracy), float(np.bincount(self.y[labelled], minlength=10).std())
