"""The rest of a published layer: feed-forward net, GRU gate, the layer, the memory retention gate."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.baselines.published_attention import PublishedAttention

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "none": lambda update: update,
}


class PublishedFeedForward(nn.Module):
    """Two linear maps, no residual. The layer norm has parameters but is never used."""

    def __init__(self, d_model: int, d_inner: int, dropout: float) -> None:
        super().__init__()
        self.CoreNet = nn.Sequential(  # the name is part of the published parameter names
            nn.Linear(d_model, d_inner),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(d_inner, d_model),
            nn.Dropout(dropout),
        )
        self.layer_norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """x: [length, B, d]; returns the same shape."""
        out: Tensor = self.CoreNet(x)
        return out


class PublishedGRUGate(nn.Module):
    """GTrXL's gate in place of a residual: (1 - z) x + z h."""

    def __init__(self, d_model: int, bias: float = 2.0) -> None:
        super().__init__()
        self.Wr = nn.Linear(d_model, d_model, bias=False)
        self.Ur = nn.Linear(d_model, d_model, bias=False)
        self.Wz = nn.Linear(d_model, d_model, bias=False)
        self.Uz = nn.Linear(d_model, d_model, bias=False)
        self.Wg = nn.Linear(d_model, d_model, bias=False)
        self.Ug = nn.Linear(d_model, d_model, bias=False)
        self.bg = nn.Parameter(torch.full((d_model,), bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: the stream; y: the sub-layer's output; both [length, B, d], as is the result."""
        r = torch.sigmoid(self.Wr(y) + self.Ur(x))
        z = torch.sigmoid(self.Wz(y) + self.Uz(x) - self.bg)
        h = torch.tanh(self.Wg(y) + self.Ug(r * x))
        return (1 - z) * x + z * h


class PublishedLayer(nn.Module):
    """One layer: LN(x + (x + attention)), LN(y + FFN(y)); gated: norms first, GRU gates for residuals."""

    def __init__(
        self,
        attention: PublishedAttention,
        d_model: int,
        d_inner: int,
        dropout: float,
        gated: bool,
        feed_forward: bool,
    ) -> None:
        super().__init__()
        if gated and not feed_forward:
            raise ValueError("a gated layer needs its feed-forward net: use_gate excludes skip_dec_ffn")
        self.gated, self.feed_forward = gated, feed_forward
        self.dec_attn = attention
        self.layer_norm1 = nn.LayerNorm(d_model)
        if feed_forward:
            self.pos_ff = PublishedFeedForward(d_model, d_inner, dropout)
            self.layer_norm2 = nn.LayerNorm(d_model)
        if gated:
            self.gate_mha = PublishedGRUGate(d_model)
            self.gate_mlp = PublishedGRUGate(d_model)

    def forward(
        self, x: Tensor, r: Tensor, r_w_bias: Tensor, r_r_bias: Tensor, mask: Tensor, mems: Tensor | None
    ) -> Tensor:
        """Arguments as those of `PublishedAttention`; x and the result [queries, B, d]."""
        if self.gated:
            attended, _ = self.dec_attn(self.layer_norm1(x), r, r_w_bias, r_r_bias, mask, mems)
            x = self.gate_mha(x, torch.relu(attended))
            x = self.gate_mlp(x, torch.relu(self.pos_ff(self.layer_norm2(x))))
            return x
        attended, _ = self.dec_attn(x, r, r_w_bias, r_r_bias, mask, mems)
        x = self.layer_norm1(x + attended)  # `attended` already holds x: the residual counts twice
        if self.feed_forward:
            x = self.layer_norm2(x + self.pos_ff(x))
        return x


class PublishedMemoryGate(nn.Module):
    """Memory retention valve: the old memory queries what the segment wrote. No residual."""

    def __init__(self, d_model: int, n_head: int, dropout: float = 0.0, activation: str = "relu") -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.activation = ACTIVATIONS[activation]
        self.wq = nn.Linear(d_model, d_model)
        self.wk = nn.Linear(d_model, d_model)
        self.wv = nn.Linear(d_model, d_model)
        self.dense = nn.Linear(d_model, d_model)

    def _heads(self, x: Tensor) -> Tensor:
        batch, rows, d_model = x.shape
        return x.view(batch, rows, self.n_head, d_model // self.n_head).transpose(1, 2)

    def forward(self, memory: Tensor, update: Tensor) -> Tensor:
        """memory, update: [B, m, d]; returns the new memory, [B, m, d]."""
        update = self.activation(update)
        q, k, v = self._heads(self.wq(memory)), self._heads(self.wk(update)), self._heads(self.wv(update))
        score = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        # Published: this dropout stays on in evaluation too.
        probability = functional.dropout(torch.softmax(score, dim=-1), self.dropout, training=True)
        out: Tensor = self.dense(torch.matmul(probability, v).transpose(1, 2).reshape(memory.shape))
        return out
