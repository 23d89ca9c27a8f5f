"""The Dia model. Only `load_dia` is called from elsewhere; what it imports takes seconds to import."""

from collections.abc import Callable

from dia_server.engine.types import Model


def load_dia(
    report: Callable[[float], None],
    *,
    model: str,
    codec: str,
    device: str,
    dtype: str,
    max_batch: int,
    compile: bool,
) -> Model:
    """Load the model; see `loader.dia_loader`. A partial of this can be sent to another process."""
    from dia_server.engine.dia.loader import dia_loader

    load = dia_loader(model, codec, device=device, dtype=dtype, max_batch=max_batch, compile=compile)
    return load(report)
