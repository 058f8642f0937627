"""The sizes that are measured: those of published scripts, growing lengths, growing batches.

``scale`` says for which machine: ``tiny`` proves that everything runs, ``cpu`` suits two cores, ``gpu`` is the real
thing. A CPU gets the published shapes with a smaller batch: attention's cost is proportional to it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rate_kernels import SegmentLayout

SCALES = ("tiny", "cpu", "gpu")


@dataclass(frozen=True)
class AttentionSize:
    """One call of memory-token attention.

    Args:
        name: as it is printed.
        batch, heads, d_head, d_pos: B, H, and the widths of a head and of the position encoding.
        layout: memory tokens and cache.
        tokens: n, the segment's tokens.
        kind: ``"real"``, ``"length"`` or ``"batch"``.
        compiled: whether ``torch.compile`` variants are measured too; compiling costs far more than running.
    """

    name: str
    batch: int
    heads: int
    d_head: int
    d_pos: int
    layout: SegmentLayout
    tokens: int
    kind: str = "real"
    compiled: bool = False

    @property
    def queries(self) -> int:
        return self.layout.query_length(self.tokens)

    @property
    def keys(self) -> int:
        return self.layout.key_length(self.tokens)

    @property
    def score_elements(self) -> int:
        """Elements of one full score matrix."""
        return self.batch * self.heads * self.queries * self.keys

    def visible_pairs(self) -> int:
        """Pairs of a query and a key that it sees, over batch and heads."""
        m, n, c = self.layout.num_memory, self.tokens, self.layout.cache_len
        memory_cache = c if self.layout.read_cache else 0
        segment = n * (c + m) + n * (n + 1) // 2
        write = self.layout.num_write * (memory_cache + 2 * m + n)
        return self.batch * self.heads * (segment + m * (memory_cache + m) + write)

    def parameters(self) -> dict[str, int]:
        return {
            "batch": self.batch,
            "heads": self.heads,
            "d_head": self.d_head,
            "d_pos": self.d_pos,
            "memory": self.layout.num_memory,
            "cache": self.layout.cache_len,
            "tokens": self.tokens,
        }


#                 name                    batch: gpu, cpu  H   d_head d_pos  m   cache tokens
_REAL = (
    ("Decision Transformer, gym", 64, 32, 1, 128, 128, 0, 0, 60),
    ("Decision Transformer, Atari", 128, 16, 8, 16, 128, 0, 0, 90),
    ("RATE, T-Maze", 128, 32, 4, 32, 64, 15, 0, 150),
    ("RATE, Memory Maze", 64, 8, 8, 64, 64, 15, 360, 90),
    ("RATE, MiniGrid", 128, 4, 12, 128, 128, 20, 250, 90),
    ("Transformer-XL, T-Maze", 64, 8, 8, 32, 64, 0, 450, 150),
    ("RATE, Atari", 128, 4, 8, 128, 128, 15, 360, 90),
    ("Decision Transformer, POPGym", 64, 4, 4, 64, 64, 0, 0, 603),
    ("RATE, POPGym", 32, 4, 8, 64, 64, 2, 300, 603),
)
_COMPILED = "RATE, T-Maze"
LENGTHS = {"tiny": (64, 128), "cpu": (128, 256, 512, 1024, 2048), "gpu": tuple(128 << k for k in range(8))}
BATCHES = {"tiny": (1, 2), "cpu": (1, 8, 32), "gpu": (1, 8, 32, 128, 512)}
TOKENS_OF_A_BATCH = {"tiny": 128, "cpu": 2048, "gpu": 16384}
"""What the growing lengths share: the longer a segment, the fewer of them."""


def attention_sizes(scale: str) -> list[AttentionSize]:
    """All sizes of a scale, real ones first.

    Raises:
        ValueError: for an unknown scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    if scale == "tiny":
        layout = SegmentLayout(3, cache_len=17)
        return [AttentionSize("tiny", 2, 2, 16, 32, layout, 21, compiled=True)]
    sizes = []
    for name, gpu, cpu, heads, d_head, d_pos, m, cache, tokens in _REAL:
        batch = gpu if scale == "gpu" else cpu
        layout = SegmentLayout(m, cache_len=cache)
        full = f"{name}, batch {batch}"
        sizes.append(
            AttentionSize(full, batch, heads, d_head, d_pos, layout, tokens, "real", name == _COMPILED)
        )
    tmaze = next(size for size in sizes if "RATE, T-Maze" in size.name)
    for batch in BATCHES[scale]:
        if batch != tmaze.batch:
            name = f"RATE, T-Maze, batch {batch}"
            sizes.append(dataclasses.replace(tmaze, name=name, batch=batch, kind="batch", compiled=False))
    for tokens in LENGTHS[scale]:
        batch = max(1, TOKENS_OF_A_BATCH[scale] // tokens)
        name = f"{tokens} tokens, batch {batch}"
        compiled = scale == "gpu" and tokens == 8192
        sizes.append(AttentionSize(name, batch, 8, 64, 64, SegmentLayout(15), tokens, "length", compiled))
    return sizes
