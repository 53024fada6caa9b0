"""The five block families in plain PyTorch, each in the form that is fastest there on a CPU.

Written from the papers named at each block. All take and return [B, T, D]. B batch, T time, D model
width, H heads, K key width per head, V value width per head, N state, E experts, C chunks.
"""

import torch
import torch.nn.functional as F
from torch import nn


def linear(d_in, d_out, bias=False):
    return nn.Linear(d_in, d_out, bias=bias)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions (Su et al. 2021), by the fused kernel."""

    def __init__(self, d_model, heads, kv_heads, seq):
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, d_model // heads
        self.qkv = linear(d_model, (heads + 2 * kv_heads) * self.width)
        self.out = linear(d_model, d_model)
        frequency = 10000.0 ** (-torch.arange(0, self.width, 2) / self.width)
        angle = torch.outer(torch.arange(seq), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def rotate(self, x):  # [B, H, T, K]
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat((-second, first), -1) * self.sin

    def forward(self, x):
        B, T, D = x.shape
        heads = self.qkv(x).view(B, T, -1, self.width).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), 1)
        o = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True,
                                           enable_gqa=self.kv_heads != self.heads)
        return self.out(o.transpose(1, 2).reshape(B, T, D))


class Mlp(nn.Module):
    """SwiGLU (Shazeer 2020); gate and up in one product."""

    def __init__(self, d_model, d_ff):
        super().__init__()
        self.up, self.down = linear(d_model, 2 * d_ff), linear(d_ff, d_model)

    def forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Moe(nn.Module):
    """Dropless top-k mixture of SwiGLU experts: assignments sorted by expert, a grouped
    product over their rows, results added back where they came from (Gale et al. 2022)."""

    def __init__(self, d_model, d_ff, experts, top_k):
        super().__init__()
        self.experts, self.top_k = experts, top_k
        self.router = linear(d_model, experts)
        self.up = nn.Parameter(torch.randn(experts, 2 * d_ff, d_model) * d_model**-0.5)
        self.down = nn.Parameter(torch.randn(experts, d_model, d_ff) * d_ff**-0.5)

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        probability = self.router(rows).softmax(-1)
        weight, expert = probability.topk(self.top_k, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        order = expert.flatten().argsort(stable=True)
        source = order // self.top_k
        load = torch.bincount(expert.flatten(), minlength=self.experts)
        ends = load.cumsum(0).int()
        up = F.grouped_mm(rows[source], self.up.transpose(1, 2), offs=ends)
        gate, up = up.chunk(2, -1)
        y = F.grouped_mm(F.silu(gate) * up, self.down.transpose(1, 2), offs=ends)
        y = y * weight.flatten()[order, None]
        # The load-balance loss of Fedus et al. 2021, eq. 4, added through the gradient alone.
        balance = self.experts * (load / load.sum() * probability.mean(0)).sum()
        return torch.zeros_like(rows).index_add(0, source, y).view_as(x), 0.01 * balance


class Mamba2(nn.Module):
    """Mamba-2 (Dao and Gu 2024, section 6) by its chunked form: inside a chunk a masked product of
    C and B, between chunks a recurrence of states, all as batched matrix products."""

    def __init__(self, d_model, d_state, head_dim, conv=4, chunk=64):
        super().__init__()
        self.inner, self.N, self.V, self.chunk = 2 * d_model, d_state, head_dim, chunk
        self.H = self.inner // head_dim
        mixed = self.inner + 2 * d_state
        self.split = (self.inner, mixed, self.H)
        self.project = linear(d_model, sum(self.split))
        self.conv = nn.Conv1d(mixed, mixed, conv, groups=mixed, padding=conv - 1)
        self.log_a = nn.Parameter(torch.empty(self.H).uniform_(1, 16).log())
        self.dt_bias = nn.Parameter(torch.expm1(torch.empty(self.H).uniform_(0.001, 0.1)).log())
        self.skip = nn.Parameter(torch.ones(self.H))
        self.norm = nn.RMSNorm(self.inner)
        self.out = linear(self.inner, d_model)

    def scan(self, x, log_decay, b, c):
        """x [B,C,L,H,V], log_decay [B,C,L,H], b and c [B,C,L,N] -> [B,C,L,H,V]."""
        total = log_decay.cumsum(2).permute(0, 1, 3, 2)  # [B,C,H,L]
        L = total.shape[-1]
        causal = torch.ones(L, L, dtype=torch.bool).tril()
        decay = (total[..., :, None] - total[..., None, :]).masked_fill(~causal, -torch.inf).exp()
        scores = (c @ b.transpose(-1, -2))[:, :, None] * decay  # [B,C,H,L,L]
        x = x.permute(0, 1, 3, 2, 4)  # [B,C,H,L,V]
        inside = scores @ x
        to_end = (total[..., -1:] - total).exp()[..., None]
        made = b[:, :, None].transpose(-1, -2) @ (x * to_end)  # [B,C,H,N,V], state a chunk makes
        whole = total[..., -1].exp()[..., None, None]
        state, before = torch.zeros_like(made[:, 0]), []
        for i in range(made.shape[1]):
            before.append(state)
            state = whole[:, i] * state + made[:, i]
        carried = c[:, :, None] @ torch.stack(before, 1) * total.exp()[..., None]
        return (inside + carried).permute(0, 1, 3, 2, 4)

    def forward(self, u):
        B, T, _ = u.shape
        z, mixed, dt = self.project(u).split(self.split, -1)
        mixed = F.silu(self.conv(mixed.transpose(1, 2))[..., :T].transpose(1, 2))
        x, b, c = mixed.split((self.inner, self.N, self.N), -1)
        dt = F.softplus(dt + self.dt_bias)
        x = x.view(B, T, self.H, self.V)
        chunks = lambda t: t.reshape(B, T // self.chunk, self.chunk, *t.shape[2:])
        y = self.scan(chunks(x * dt[..., None]), chunks(-dt * self.log_a.exp()), chunks(b),
                      chunks(c)).reshape(B, T, self.H, self.V)
        y = (y + self.skip[:, None] * x).reshape(B, T, self.inner)
        return self.out(self.norm(y * F.silu(z)))


class Gla(nn.Module):
    """Gated linear attention (Yang et al. 2024, section 4) by its chunked form: queries and keys
    scaled by the running gate, a masked product inside a chunk, a state between chunks."""

    def __init__(self, d_model, heads, expand_k=0.5, gate_rank=16, divisor=16, chunk=64):
        super().__init__()
        key = int(d_model * expand_k)
        self.H, self.K, self.V = heads, key // heads, d_model // heads
        self.divisor, self.chunk = divisor, chunk
        self.sizes = (key, key, d_model, d_model, gate_rank)
        self.project = linear(d_model, sum(self.sizes))
        self.gate = linear(gate_rank, key, bias=True)
        self.norm = nn.RMSNorm(self.V)
        self.out = linear(d_model, d_model)

    def scan(self, q, k, v, g):
        """q, k, g [B,H,C,L,K], v [B,H,C,L,V] -> [B,H,C,L,V]."""
        total = g.cumsum(3)
        q = q * self.K**-0.5 * total.exp()
        end = total[..., -1:, :]
        scores = (q @ (k * (-total).exp()).transpose(-1, -2)).tril()
        made = (k * (end - total).exp()).transpose(-1, -2) @ v  # [B,H,C,K,V]
        whole = end.exp().transpose(-1, -2)
        state, before = torch.zeros_like(made[:, :, 0]), []
        for i in range(made.shape[2]):
            before.append(state)
            state = whole[:, :, i] * state + made[:, :, i]
        return scores @ v + q @ torch.stack(before, 2)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v, z, low = self.project(x).split(self.sizes, -1)
        g = F.logsigmoid(self.gate(low)) / self.divisor
        heads = lambda t: t.reshape(B, T // self.chunk, self.chunk, self.H, -1).permute(0, 3, 1, 2, 4)
        o = self.scan(heads(q), heads(k), heads(v), heads(g))
        o = self.norm(o.permute(0, 2, 3, 1, 4)).reshape(B, T, D)
        return self.out(o * F.silu(z))


class Model(nn.Module):
    """Byte embedding, layers of x + block(norm(x)), norm, head, mean cross-entropy."""

    def __init__(self, make_block, d_model, layers, vocab=256):
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.blocks = nn.ModuleList(make_block() for _ in range(layers))
        self.norms = nn.ModuleList(nn.RMSNorm(d_model) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(d_model), linear(d_model, vocab)

    def forward(self, tokens, targets):
        x, extra = self.embed(tokens), 0.0
        for norm, block in zip(self.norms, self.blocks):
            y = block(norm(x))
            if isinstance(y, tuple):
                y, balance = y
                extra = extra + balance
            x = x + y
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) + extra
