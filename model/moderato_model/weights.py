"""`weights.bin`: one file of raw tensors that both graphs refer to.

Tensors are written as they are first asked for and never held, so peak memory is that of one tensor.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

FILE_NAME = "weights.bin"
# A page: ONNX Runtime can then map a tensor instead of reading it.
ALIGNMENT = 4096


class WeightFile:
    """Writes each tensor once; later requests by the same name get a reference to the same bytes."""

    def __init__(self, folder: Path):
        self._file = (folder / FILE_NAME).open("wb")
        self._references: dict[str, onnx.TensorProto] = {}

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def reference(self, name: str, make: Callable[[], np.ndarray]) -> onnx.TensorProto:
        """An external tensor called `name`; `make` is called only if it is not in the file yet."""
        if name not in self._references:
            self._references[name] = self._append(name, make())
        return self._references[name]

    def _append(self, name: str, array: np.ndarray) -> onnx.TensorProto:
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        offset = self._file.tell()
        np.ascontiguousarray(array).tofile(self._file)
        tensor = onnx.TensorProto(
            name=name,
            dims=array.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", FILE_NAME), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor
