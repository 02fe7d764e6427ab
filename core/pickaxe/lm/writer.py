"""Writing ONNX graphs that share one file of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pickaxe.extras import require

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
_ALIGN = 4096
"""So that tensors can be mapped into memory."""


class WeightFile:
    """The file of weights that several graphs share; equal names are written once."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.name = path.name
        self._stream = stream
        self._written: dict[str, tuple[int, int, np.dtype, tuple[int, ...]]] = {}

    def place(self, name: str, make: Callable[[], np.ndarray]) -> tuple[int, int, np.dtype, tuple[int, ...]]:
        """Offset, length, dtype and shape of a tensor, written on first use."""
        if name not in self._written:
            array = np.ascontiguousarray(make())
            start = -(-self._stream.tell() // _ALIGN) * _ALIGN
            self._stream.seek(start)
            self._stream.write(array.tobytes())
            self._written[name] = (start, array.nbytes, array.dtype, array.shape)
        return self._written[name]


class GraphWriter:
    """Collects the nodes of one graph."""

    def __init__(self, weights: WeightFile) -> None:
        self.onnx = require("onnx", extra="cpu")
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def node(self, op: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its first output."""
        names = [outputs] if isinstance(outputs, str) else outputs
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(self.onnx.helper.make_node(op, inputs, names, name=f"{op}:{names[0]}", domain=domain, **kept))
        return names[0]

    def constant(self, name: str, array: np.ndarray) -> str:
        """A small tensor kept in the graph itself."""
        self.initializers[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, make: Callable[[], np.ndarray], stored: str = "", shape: tuple[int, ...] = ()) -> str:
        """A tensor in the file of weights; `make` is asked for it only once for all graphs.

        With `stored` and `shape`, it is another view of the tensor stored under that name.
        """
        if name not in self.initializers:
            start, length, dtype, written = self.weights.place(stored or name, make)
            proto = self.onnx.TensorProto(
                name=name,
                dims=shape or written,
                data_type=self.onnx.helper.np_dtype_to_tensor_dtype(dtype),
                data_location=self.onnx.TensorProto.EXTERNAL,
            )
            for key, value in (("location", self.weights.name), ("offset", start), ("length", length)):
                proto.external_data.add(key=key, value=str(value))
            self.initializers[name] = proto
        return name

    def input(self, name: str, dtype: type, shape: list[str | int]) -> str:
        self.inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: type, shape: list[str | int]) -> None:
        self.outputs.append(self._value(name, dtype, shape))

    def _value(self, name: str, dtype: type, shape: list[str | int]) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def save(self, path: Path) -> None:
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, self.outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="pickaxe")
        path.write_bytes(model.SerializeToString())
