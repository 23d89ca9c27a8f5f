"""Sizes and special tokens of a Dia model, read from its checkpoint's config."""

from dataclasses import dataclass, replace
from typing import Self

from transformers import DiaConfig
from transformers.models.dia.configuration_dia import DiaDecoderConfig, DiaEncoderConfig

from dia_server.errors import ModelNotLoaded


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Sizes of one stack of transformer layers, the encoder's or the decoder's."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    theta: float
    eps: float

    @classmethod
    def of(cls, config: DiaEncoderConfig | DiaDecoderConfig) -> Self:
        """Read a stack's config; raises ModelNotLoaded if its position embedding is not plain RoPE."""
        rope = config.rope_parameters
        theta = rope.get("rope_theta") if isinstance(rope, dict) else None
        if theta is None or not isinstance(rope, dict) or rope.get("rope_type") != "default":
            raise ModelNotLoaded(f"Only plain RoPE is supported; the config asks for {rope}")
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            mlp=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            theta=theta,
            eps=config.norm_eps,
        )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the whole model, and its special tokens."""

    encoder: StackConfig
    decoder: StackConfig
    cross_heads: int
    cross_kv_heads: int
    cross_head_dim: int
    channels: int
    delay: tuple[int, ...]
    """Delay of each channel in columns; 0 for channel 0."""
    eos: int
    pad: int
    bos: int

    @classmethod
    def of(cls, config: DiaConfig) -> Self:
        """Read a checkpoint's config; raises ModelNotLoaded if the config is not supported."""
        encoder, decoder, delay = config.encoder_config, config.decoder_config, config.delay_pattern
        assert isinstance(encoder, DiaEncoderConfig)
        assert isinstance(decoder, DiaDecoderConfig)
        assert delay is not None
        eos, pad, bos = decoder.eos_token_id, decoder.pad_token_id, decoder.bos_token_id
        if not isinstance(eos, int) or pad is None or bos is None:
            raise ModelNotLoaded(f"The config must name EOS, PAD and BOS; it has {eos}, {pad} and {bos}")
        return cls(
            encoder=StackConfig.of(encoder),
            decoder=StackConfig.of(decoder),
            cross_heads=decoder.cross_num_attention_heads,
            cross_kv_heads=decoder.cross_num_key_value_heads,
            cross_head_dim=decoder.cross_head_dim,
            channels=decoder.num_channels,
            delay=tuple(delay),
            eos=eos,
            pad=pad,
            bos=bos,
        )

    def with_columns(self, most: int) -> Self:
        """Return this config with a decoder of at most `most` columns."""
        positions = min(most, self.decoder.positions)
        return replace(self, decoder=replace(self.decoder, positions=positions))

    @property
    def tail(self) -> int:
        """Columns that follow channel 0's EOS until the run ends."""
        return max(self.delay)
