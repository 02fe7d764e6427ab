"""KV prediction: a small model reads the prompt, and linear maps turn its cache into the large model's.

The decoder is `kv-predict` (arXiv 2410.08391); its parts can be used alone.
"""

from pickaxe_plugins.decoding.kv_predict._graph import write_graph
from pickaxe_plugins.decoding.kv_predict._layers import kept_layers, nearest_map, prefill_share, spread_map
from pickaxe_plugins.decoding.kv_predict._loss import losses
from pickaxe_plugins.decoding.kv_predict._method import KVPredict, Params
from pickaxe_plugins.decoding.kv_predict._predictor import predict
from pickaxe_plugins.decoding.kv_predict._reader import Reader

__all__ = [
    "KVPredict",
    "Params",
    "Reader",
    "kept_layers",
    "losses",
    "nearest_map",
    "predict",
    "prefill_share",
    "spread_map",
    "write_graph",
]
