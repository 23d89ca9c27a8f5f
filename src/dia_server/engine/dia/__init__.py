"""The Dia model. Other packages call `load_dia` only, which imports torch (seconds) when it is called."""

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
    max_columns: int,
    compile: bool,
    codec_dtype: str = "fp32",
) -> Model:
    """Load the model; `loader.dia_loader` describes the arguments, `report` receives the progress, 0 to 1.

    This is a module-level function, so that a `partial` of it can be pickled. Raises ModelNotLoaded.
    """
    from dia_server.engine.dia.loader import dia_loader

    load = dia_loader(
        model,
        codec,
        device=device,
        dtype=dtype,
        max_batch=max_batch,
        max_columns=max_columns,
        compile=compile,
        codec_dtype=codec_dtype,
    )
    return load(report)
