"""Reads Dia's checkpoint from a folder in transformers' format, in one safetensors file or in shards.

Tensors are memory-mapped and read one at a time, so loading never holds a second copy of the model.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import DiaConfig

from dia_server.engine.dia.hub import INDEX, SINGLE
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.errors import ModelNotLoaded


class Checkpoint:
    """Config and tensors of one folder.

    The constructor raises ModelNotLoaded if a file is missing or invalid, and `tensor` raises it if the
    checkpoint lacks the tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder)
        self._files: dict[str, Any] = {}
        if (folder / INDEX).exists():
            names = _read_json(folder / INDEX).get("weight_map")
            if not isinstance(names, dict):
                raise ModelNotLoaded(f"{folder / INDEX} has no weight_map")
            self._where = {name: self._open(file) for name, file in names.items()}
        else:
            single = self._open(SINGLE)
            self._where = dict.fromkeys(single.keys(), single)

    def tensor(self, name: str) -> Tensor:
        if name not in self._where:
            raise ModelNotLoaded(f"{self.folder} has no tensor {name!r}")
        tensor: Tensor = self._where[name].get_tensor(name)
        return tensor

    def elements(self) -> int:
        """Return the number of elements in all tensors."""
        shapes: list[list[int]] = [f.get_slice(name).get_shape() for name, f in self._where.items()]
        return sum(prod(shape) for shape in shapes)

    def _open(self, file: str) -> Any:
        if file not in self._files:
            if not (self.folder / file).exists():
                raise ModelNotLoaded(f"{self.folder} lacks {file}")
            try:
                self._files[file] = safe_open(self.folder / file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ModelNotLoaded(f"{self.folder / file} could not be read: {error}") from error
        return self._files[file]


def _read_config(folder: Path) -> ModelConfig:
    if not (folder / "config.json").exists():
        raise ModelNotLoaded(f"{folder} lacks config.json")
    values = _read_json(folder / "config.json")
    if values.get("model_type") != "dia":
        raise ModelNotLoaded(f"{folder} holds a model of type {values.get('model_type')!r}; expected 'dia'")
    try:
        return ModelConfig.of(DiaConfig.from_dict(values))
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ModelNotLoaded(f"{folder / 'config.json'} is no config of Dia: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelNotLoaded(f"{path} could not be read: {error}") from error
    except ValueError as error:
        raise ModelNotLoaded(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelNotLoaded(f"{path} is not a JSON object")
    return values
