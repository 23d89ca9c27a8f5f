"""Triton's interpreter, with fixes for bugs of Triton 3.6's."""

from typing import Any

from triton.runtime import interpreter  # type: ignore[import-untyped]


def mend() -> None:
    """Mend the interpreter, for the rest of the process."""
    language, builder = interpreter.tl, interpreter.InterpreterBuilder
    patch, dot, cast = interpreter._patch_lang_tensor, builder.create_dot, builder.cast_impl

    def patch_and_mend(tensor: type, scope: Any) -> None:
        """Make loop bounds usable as integers: they are one-element arrays, which NumPy 2.4 rejects."""
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def dot_of_bf16(self: Any, a: Any, b: Any, *extra: Any) -> Any:
        """Convert bf16 to fp32 first: the interpreter would multiply its bit patterns."""
        if a.dtype == language.bfloat16:
            a, b = (self.cast_impl(x, language.float32) for x in (a, b))
        return dot(self, a, b, *extra)

    def cast_to_bf16(self: Any, value: Any, dtype: Any) -> Any:
        """Convert integers to bf16 by way of fp32: the interpreter would take them for bit patterns."""
        if dtype.scalar == language.bfloat16 and value.dtype.scalar == language.int8:
            value = cast(self, value, language.float32)
        return cast(self, value, dtype)

    interpreter._patch_lang_tensor = patch_and_mend
    builder.create_dot = dot_of_bf16
    builder.cast_impl = cast_to_bf16
