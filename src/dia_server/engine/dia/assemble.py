"""From a checkpoint's tensors to `Weights`: check each one's shape, fuse, cast, move, pack."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.encoder import silent_states
from dia_server.engine.dia.shape import Shape, Tower
from dia_server.engine.dia.weights import (
    Block,
    DecoderLayer,
    Encoder,
    Linear,
    Weights,
    computed_in,
    rotation,
)
from dia_server.errors import ModelNotLoaded

Source = Callable[[str], Tensor]
"""A checkpoint's tensor by its name; from files, or a transformers model's `state_dict().__getitem__`."""


class Assembly:
    """Takes tensors from `source` one at a time, so that never more than one of them exists twice."""

    def __init__(self, source: Source, device: torch.device, dtype: torch.dtype) -> None:
        self.source, self.device, self.dtype = source, device, computed_in(dtype, device)
        self.halved = self.dtype != dtype
        self.bytes = 0

    def tensor(self, shape: tuple[int, ...], *names: str) -> Tensor:
        """The tensors `names`, each of `shape`, one below the other in a new one."""
        whole = torch.empty(len(names) * shape[0], *shape[1:], dtype=self.dtype, device=self.device)
        for name, part in zip(names, whole.tensor_split(len(names)), strict=True):
            found = self.source(name)
            if found.shape != shape:
                raise ModelNotLoaded(
                    f"The tensor {name!r} has shape {list(found.shape)}; the config asks for {list(shape)}"
                )
            part.copy_(found)
        self.bytes += whole.nbytes
        return whole

    def linear(self, shape: tuple[int, int], *names: str) -> Linear:
        return self.packed(self.tensor(shape, *names))

    def packed(self, weight: Tensor) -> Linear:
        if self.halved:
            self.bytes -= weight.nbytes // 2
        return Linear(weight, halved=self.halved)

    def block(self, prefix: str, tower: Tower, mlp_norm: str) -> Block:
        q_width, kv_width = tower.heads * tower.head_dim, tower.kv_heads * tower.head_dim
        attention = f"{prefix}self_attention."
        q = self.tensor((q_width, tower.hidden), f"{attention}q_proj.weight")
        kv = self.tensor((kv_width, tower.hidden), f"{attention}k_proj.weight", f"{attention}v_proj.weight")
        return Block(
            attention_norm=self.tensor((tower.hidden,), f"{prefix}pre_sa_norm.weight"),
            qkv=self.packed(torch.cat([q, kv])),
            out=self.linear((tower.hidden, q_width), f"{attention}o_proj.weight"),
            mlp_norm=self.tensor((tower.hidden,), f"{prefix}{mlp_norm}.weight"),
            gate_up=self.linear((2 * tower.mlp, tower.hidden), f"{prefix}mlp.gate_up_proj.weight"),
            down=self.linear((tower.hidden, tower.mlp), f"{prefix}mlp.down_proj.weight"),
            eps=tower.eps,
        )

    def encoder(self, tower: Tower) -> Encoder:
        prefix = "model.encoder."
        if tower.kv_heads != tower.heads:
            raise ModelNotLoaded("Grouped-query attention in the encoder is not supported")
        return Encoder(
            embedding=self.tensor((tower.vocabulary, tower.hidden), f"{prefix}embedding.weight"),
            blocks=[self.block(f"{prefix}layers.{i}.", tower, "post_sa_norm") for i in range(tower.layers)],
            norm=self.tensor((tower.hidden,), f"{prefix}norm.weight"),
            rotation=rotation(tower.positions, tower.head_dim, tower.theta, self.device),
            heads=tower.heads,
            head_dim=tower.head_dim,
            eps=tower.eps,
        )

    def layer(self, prefix: str, shape: Shape, silent_value: Tensor) -> DecoderLayer:
        width, hidden = shape.cross_heads * shape.cross_head_dim, shape.audio.hidden
        text_out = self.tensor((hidden, width), f"{prefix}cross_attention.o_proj.weight")
        return DecoderLayer(
            block=self.block(prefix, shape.audio, "pre_mlp_norm"),
            text_norm=self.tensor((hidden,), f"{prefix}pre_ca_norm.weight"),
            text_q=self.linear((width, hidden), f"{prefix}cross_attention.q_proj.weight"),
            silence=F.linear(silent_value, text_out),
            text_out=self.packed(text_out),
        )


def assemble(
    shape: Shape,
    source: Source,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[float], None] = lambda share: None,
) -> Weights:
    """Build the weights in `dtype`, telling `report` the share that is done.

    Raises ModelNotLoaded with the cause.
    """
    assembly, audio = Assembly(source, device, dtype), shape.audio
    encoder = assembly.encoder(shape.text)
    prefixes = [f"model.decoder.layers.{i}." for i in range(audio.layers)]
    text_kv = assembly.tensor(
        (shape.cross_kv_heads * shape.cross_head_dim, shape.text.hidden),
        *(f"{prefix}cross_attention.{part}_proj.weight" for prefix in prefixes for part in "kv"),
    )
    silent = F.linear(silent_states(encoder), text_kv).view(audio.layers, 2, -1, shape.cross_head_dim)[:, 1]
    # grouped queries share a value head, which then stands in the place of each of them
    silent = silent.repeat_interleave(shape.cross_heads // shape.cross_kv_heads, 1).flatten(1)
    layers = []
    for i, prefix in enumerate(prefixes):
        layers.append(assembly.layer(prefix, shape, silent[i : i + 1]))
        report((i + 1) / audio.layers)
    table = (shape.channels * audio.vocabulary, audio.hidden)
    return Weights(
        shape=shape,
        device=device,
        dtype=assembly.dtype,
        encoder=encoder,
        text_kv=assembly.packed(text_kv),
        embedding=assembly.tensor(table, "model.decoder.embeddings.embed.weight"),
        channel_offset=torch.arange(shape.channels, device=device) * audio.vocabulary,
        layers=layers,
        norm=assembly.tensor((audio.hidden,), "model.decoder.norm.weight"),
        head=assembly.linear(table, "logits_dense.weight"),
        delay=torch.tensor(shape.delay, device=device),
        rotation=rotation(audio.positions, audio.head_dim, audio.theta, device),
        bytes=assembly.bytes,
    )
