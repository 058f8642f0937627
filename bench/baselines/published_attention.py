"""Relative-position attention as published: whole score matrices, shifted by padding and re-viewing.

Sequence first: hidden states are [length, batch, d_model], scores [queries, keys, batch, heads].
"""

import torch
from torch import Tensor, nn


def published_mask(
    tokens: int,
    cache_len: int,
    num_mem_tokens: int,
    mem_at_end: bool,
    read_mem_from_cache: bool,
    device: torch.device | None = None,
) -> Tensor:
    """Who may not see whom, uint8 [tokens, cache_len + tokens]; 1 hides. `tokens` counts memory rows too.

    Causal, except that each memory block sees the whole of itself and, by default, nothing of the cache.
    """
    mask = torch.triu(
        torch.ones(tokens, cache_len + tokens, dtype=torch.uint8, device=device), diagonal=1 + cache_len
    )
    if num_mem_tokens == 0:
        return mask
    blocks = [(slice(0, num_mem_tokens), slice(cache_len, cache_len + num_mem_tokens))]
    if mem_at_end:
        blocks.append((slice(-num_mem_tokens, None), slice(-num_mem_tokens, None)))
    for rows, columns in blocks:
        mask[rows, columns] = 0
        if not read_mem_from_cache:
            mask[rows, :cache_len] = 1
    return mask


def relative_shift(scores: Tensor) -> Tensor:
    """Move row i left by (queries - 1 - i): column j then holds the score of distance i - j + cache_len.

    Done by one column of zeros and a second look at the same memory, so the cells ahead of a query are not
    empty: the first of them is the zero, the others begin the next query's row. Memory blocks see them.
    scores: [queries, keys, batch, heads]; returns the same shape.
    """
    queries, keys, batch, heads = scores.shape
    zeros = scores.new_zeros(queries, 1, batch, heads)
    padded = torch.cat([zeros, scores], dim=1)
    return padded.view(keys + 1, queries, batch, heads)[1:].view_as(scores)


class PublishedAttention(nn.Module):
    """Transformer-XL attention with the residual inside.

    With `pre_lnorm` the layer norm is applied to cache and tokens alike; without it the norm has parameters
    and is never used.
    """

    def __init__(
        self,
        n_head: int,
        d_model: int,
        d_head: int,
        dropout: float = 0.0,
        dropatt: float = 0.0,
        pre_lnorm: bool = False,
        host_copies: bool = True,
    ) -> None:
        super().__init__()
        self.n_head, self.d_head = n_head, d_head
        self.scale = d_head**-0.5
        self.pre_lnorm = pre_lnorm
        self.host_copies = host_copies
        self.qkv_net = nn.Linear(d_model, 3 * n_head * d_head, bias=False)
        self.r_net = nn.Linear(d_model, n_head * d_head, bias=False)
        self.o_net = nn.Linear(n_head * d_head, d_model, bias=False)
        self.layer_norm = nn.LayerNorm(d_model)
        self.drop = nn.Dropout(dropout)
        self.dropatt = nn.Dropout(dropatt)

    def forward(
        self, w: Tensor, r: Tensor, r_w_bias: Tensor, r_r_bias: Tensor, mask: Tensor, mems: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """w: [queries, B, d]; r: [keys, 1, d], farthest distance first; biases: [H, d_head];
        mems: [cache, B, d]; mask: uint8 [queries, keys, 1].
        Returns w + attention [queries, B, d], and the attention on the host [queries, keys, B, H], which is
        None without `host_copies`."""
        queries, batch, _ = w.shape
        seen = w if mems is None else torch.cat([mems, w], dim=0)
        q, k, v = self.qkv_net(self.layer_norm(seen) if self.pre_lnorm else seen).chunk(3, dim=-1)
        keys = seen.shape[0]
        q = q[-queries:].view(queries, batch, self.n_head, self.d_head)
        k = k.view(keys, batch, self.n_head, self.d_head)
        v = v.view(keys, batch, self.n_head, self.d_head)
        # Depends on the length and the weights only, and yet is projected anew in every layer of every call.
        r = self.r_net(r).view(keys, self.n_head, self.d_head)

        content = torch.einsum("ibnd,jbnd->ijbn", q + r_w_bias, k)
        position = relative_shift(torch.einsum("ibnd,jnd->ijbn", q + r_r_bias, r))
        score = (content + position) * self.scale
        # Asking the host whether anything is hidden makes it wait for the device, once per layer.
        if not self.host_copies or mask.any().item():
            score = score.float().masked_fill(mask[:, :, :, None].bool(), -float("inf")).type_as(score)
        probability = torch.softmax(score, dim=1)
        # On a CPU this shares storage and is free; on a GPU it is a blocking copy of everything.
        on_host = probability.detach().cpu() if self.host_copies else None
        probability = self.dropatt(probability)
        out = torch.einsum("ijbn,jbnd->ibnd", probability, v).reshape(queries, batch, -1)
        return w + self.drop(self.o_net(out)), on_host
