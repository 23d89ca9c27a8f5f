"""Builds `Weights` from a checkpoint: checks shapes, fuses, casts, moves to the device and packs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.encoder import uncond_states
from dia_server.engine.dia.linear import Linear, pack, pack_int8, quantize
from dia_server.engine.dia.model_config import ModelConfig, StackConfig
from dia_server.engine.dia.weights import (
    Block,
    DecoderLayer,
    Encoder,
    Weights,
    compute_dtype,
    rotation,
)
from dia_server.errors import ModelNotLoaded

Source = Callable[[str], Tensor]
"""Function that returns a tensor by name: `Checkpoint.tensor`, or a transformers model's
`state_dict().__getitem__`."""


ReadLinear = Callable[[tuple[int, int], str], Linear]
"""Function (shape, name) that reads a weight [out, in] and prepares it."""


class Assembly:
    """Reads tensors from `source` one at a time, so that memory never holds a second copy of the model."""

    def __init__(
        self, source: Source, device: torch.device, dtype: torch.dtype, *, int8: bool, kernels: bool
    ) -> None:
        self.source, self.device, self.dtype = source, device, compute_dtype(dtype, device)
        self.as_fp16, self.int8, self.kernels = self.dtype != dtype, int8, kernels
        # beside int8 products, which are loops of our own too
        on_cpu_in_bf16 = device.type == "cpu" and self.dtype == torch.bfloat16
        self.loops = int8 and on_cpu_in_bf16 and cpu_ops.multiplies_bf16()
        self.bytes = 0

    def read(self, shape: tuple[int, ...], name: str) -> Tensor:
        """Return a tensor of the checkpoint; raises ModelNotLoaded if it has another shape."""
        found = self.source(name)
        if found.shape != shape:
            raise ModelNotLoaded(
                f"The tensor {name!r} has shape {list(found.shape)}; the config asks for {list(shape)}"
            )
        return found

    def tensor(self, shape: tuple[int, ...], *names: str) -> Tensor:
        """Read the tensors `names`, each of `shape`, and concatenate them along dimension 0.

        The result is on the device, in the dtype of the activations. Raises ModelNotLoaded if a tensor has
        another shape.
        """
        whole = torch.empty(len(names) * shape[0], *shape[1:], dtype=self.dtype, device=self.device)
        for name, part in zip(names, whole.tensor_split(len(names)), strict=True):
            part.copy_(self.read(shape, name))
        self.bytes += whole.nbytes
        return whole

    def linear(self, shape: tuple[int, int], *names: str) -> Linear:
        return self.packed(self.tensor(shape, *names))

    def packed(self, weight: Tensor) -> Linear:
        if self.as_fp16:
            self.bytes -= weight.nbytes // 2
        return pack(weight, as_fp16=self.as_fp16, loops=self.loops, kernels=self.kernels)

    def quantized(self, shape: tuple[int, int], name: str) -> Linear:
        """Read a weight of the decoder; with `int8` it is quantized from the numbers in the file."""
        if not self.int8:
            return self.linear(shape, name)
        values, scale = quantize(self.read(shape, name).to(self.device, torch.float32))
        self.bytes += values.nbytes + scale.nbytes
        return pack_int8(values, scale, kernels=self.kernels)

    def block(self, prefix: str, stack: StackConfig, mlp_norm: str, linear: ReadLinear) -> Block:
        """Read the weights of a layer; `linear` reads those that can be int8."""
        q_width, kv_width = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
        attention = f"{prefix}self_attention."
        q = self.tensor((q_width, stack.hidden), f"{attention}q_proj.weight")
        kv = self.tensor((kv_width, stack.hidden), f"{attention}k_proj.weight", f"{attention}v_proj.weight")
        return Block(
            attention_norm=self.tensor((stack.hidden,), f"{prefix}pre_sa_norm.weight"),
            qkv=self.packed(torch.cat([q, kv])),
            out=linear((stack.hidden, q_width), f"{attention}o_proj.weight"),
            mlp_norm=self.tensor((stack.hidden,), f"{prefix}{mlp_norm}.weight"),
            gate_up=linear((2 * stack.mlp, stack.hidden), f"{prefix}mlp.gate_up_proj.weight"),
            down=linear((stack.hidden, stack.mlp), f"{prefix}mlp.down_proj.weight"),
            eps=stack.eps,
        )

    def encoder(self, stack: StackConfig) -> Encoder:
        prefix = "model.encoder."
        if stack.kv_heads != stack.heads:
            raise ModelNotLoaded("Grouped-query attention in the encoder is not supported")
        return Encoder(
            embedding=self.tensor((stack.vocabulary, stack.hidden), f"{prefix}embedding.weight"),
            blocks=[
                self.block(f"{prefix}layers.{i}.", stack, "post_sa_norm", self.linear)
                for i in range(stack.layers)
            ],
            norm=self.tensor((stack.hidden,), f"{prefix}norm.weight"),
            rotation=rotation(stack.positions, stack.head_dim, stack.theta, self.device),
            heads=stack.heads,
            head_dim=stack.head_dim,
            eps=stack.eps,
        )

    def layer(self, prefix: str, config: ModelConfig, uncond_value: Tensor) -> DecoderLayer:
        width, hidden = config.cross_heads * config.cross_head_dim, config.decoder.hidden
        text_out = self.quantized((hidden, width), f"{prefix}cross_attention.o_proj.weight")
        return DecoderLayer(
            block=self.block(prefix, config.decoder, "pre_mlp_norm", self.quantized),
            text_norm=self.tensor((hidden,), f"{prefix}pre_ca_norm.weight"),
            text_q=self.linear((width, hidden), f"{prefix}cross_attention.q_proj.weight"),
            uncond_cross_attention=text_out(uncond_value),
            text_out=text_out,
        )


def assemble(
    config: ModelConfig,
    source: Source,
    *,
    device: torch.device,
    dtype: torch.dtype,
    int8: bool = False,
    kernels: bool = True,
    report: Callable[[float], None] = lambda share: None,
) -> Weights:
    """Build the weights in `dtype` on `device`; with `int8`, those of most of the decoder's products in int8.

    `kernels` tells whether Triton works on the device, if that is a CUDA device.
    `report` receives the share of decoder layers built, 0 to 1. Raises ModelNotLoaded if a tensor is missing
    or has another shape than the config asks for, and if the encoder has grouped-query attention.
    """
    assembly, decoder = Assembly(source, device, dtype, int8=int8, kernels=kernels), config.decoder
    encoder = assembly.encoder(config.encoder)
    prefixes = [f"model.decoder.layers.{i}." for i in range(decoder.layers)]
    text_kv = assembly.tensor(
        (config.cross_kv_heads * config.cross_head_dim, config.encoder.hidden),
        *(f"{prefix}cross_attention.{part}_proj.weight" for prefix in prefixes for part in "kv"),
    )
    uncond = F.linear(uncond_states(encoder), text_kv).view(decoder.layers, 2, -1, config.cross_head_dim)[
        :, 1
    ]
    # grouped-query attention: repeat each value head for every query head that shares it
    uncond = uncond.repeat_interleave(config.cross_heads // config.cross_kv_heads, 1).flatten(1)
    layers = []
    for i, prefix in enumerate(prefixes):
        layers.append(assembly.layer(prefix, config, uncond[i : i + 1]))
        report((i + 1) / decoder.layers)
    table = (config.channels * decoder.vocabulary, decoder.hidden)
    return Weights(
        config=config,
        device=device,
        dtype=assembly.dtype,
        encoder=encoder,
        text_kv=assembly.packed(text_kv),
        embedding=assembly.tensor(table, "model.decoder.embeddings.embed.weight"),
        channel_offset=torch.arange(config.channels, device=device) * decoder.vocabulary,
        layers=layers,
        norm=assembly.tensor((decoder.hidden,), "model.decoder.norm.weight"),
        head=assembly.linear(table, "logits_dense.weight"),
        delay=torch.tensor(config.delay, device=device),
        rotation=rotation(decoder.positions, decoder.head_dim, decoder.theta, device),
        bytes=assembly.bytes,
    )


def weight_bytes(config: ModelConfig, elements: int, dtype: torch.dtype, *, int8: bool) -> int:
    """Return the bytes of a checkpoint of `elements` numbers, as `assemble` stores it."""
    if not int8:
        return elements * dtype.itemsize
    decoder, cross = config.decoder, config.cross_heads * config.cross_head_dim
    inputs = decoder.heads * decoder.head_dim + cross + 3 * decoder.mlp
    quantized = decoder.layers * decoder.hidden * inputs
    scales = decoder.layers * (3 * decoder.hidden + 2 * decoder.mlp)
    return (elements - quantized) * dtype.itemsize + quantized + scales * torch.float32.itemsize
