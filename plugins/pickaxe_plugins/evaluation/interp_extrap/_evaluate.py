"""All trainings of a retriever on the parts of `interp-extrap`, each resumable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pickaxe import Artifact, Call, Host, Item, Items, MethodRef, catalog, metrics
from pickaxe.errors import InvalidItems
from pickaxe.host import default_host

Metric = Literal["mrr", "ndcg", "recall"]


@dataclass(frozen=True)
class Data:
    """What a retriever is trained and tested on; `train` and `test` are the queries that made the splits."""

    documents: Sequence[Item]
    train: Sequence[Item]
    test: Sequence[Item]
    qrels: metrics.Qrels


def evaluate(
    retriever: MethodRef | str,
    data: Data,
    splits: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    metric: Metric = "mrr",
    k: int = 10,
    host: Host | None = None,
    call: Call | None = None,
) -> Items:
    """Train the retriever once per fold of `splits` (an artifact of fit), test each, and return items for `score`.

    A fit that reads `unlabelled` gets the documents there.  A retriever that cannot be fitted is indexed once and its
    run serves every fold.  Trainings lie in `out/fold-b` and those that are there already are used again.  Raises
    `InvalidItems` for training queries that the data lacks.
    """
    host, call = host or default_host(), call or Call()
    ref = MethodRef.model_validate(retriever) if isinstance(retriever, str) else retriever
    artifact = Artifact.open(splits)
    ids = artifact.read_json("ids.json")
    training = artifact.read_array("training.npy")
    by_id = {item.id: item for item in data.train}
    if lost := [query for query in ids["train"] if query not in by_id]:
        raise InvalidItems("train", f"lacks {len(lost)} queries of the splits, e.g. {lost[0]!r}")
    rows: list[Item] = []
    values: dict[str, float] | None = None
    for fold in range(len(training)):
        call.check()
        handle = host.retriever(ref)
        fits = catalog.describe(ref.name).trainable
        if fits or values is None:
            if fits:
                chosen = [by_id[ids["train"][row]] for row in np.flatnonzero(training[fold])]
                target = Path(out) / f"fold-{fold}"
                if not target.exists():
                    handle.fit(chosen, unlabelled=data.documents, out=target, call=call)
                handle = host.open(ref.name, "retriever", ref.params, target)
            found = handle.index(data.documents, call=call).search(data.test, k, call=call)
            run = {query.id: [hit.id for hit in hits] for query, hits in zip(data.test, found, strict=True)}
            values = getattr(metrics, metric)(run, data.qrels, k)
        for query in ids["test"]:
            if query in values:
                fields = {"fold": fold, "query": query, "system": ref.name, "metric": values[query]}
                rows.append(Item(f"{ref.name} {fold} {query}", fields=fields))
    return Items(rows)
