"""Times training steps of one block family in PyTorch on the CPU and prints them as JSON.

    python bench/peers/torch_train.py --block mamba2 --d-model 256 --layers 4 --batch 8 --seq 512

Needs PyTorch (any build that runs on a CPU); neither ./setup nor ./test does.
"""

import argparse
import json
import statistics
import sys
import time

import torch

import torch_blocks as blocks


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--block", choices=["attention", "mlp", "mamba2", "gla", "moe"], required=True)
    p.add_argument("--form", choices=["eager", "compile"], default="eager")
    p.add_argument("--d-model", type=int, default=256)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--seq", type=int, default=512)
    p.add_argument("--heads", type=int, default=4, help="of attention and gla")
    p.add_argument("--kv-heads", type=int, default=4, help="of attention")
    p.add_argument("--d-ff", type=int, default=704, help="of mlp, and of each expert")
    p.add_argument("--experts", type=int, default=8)
    p.add_argument("--top-k", type=int, default=2)
    p.add_argument("--d-state", type=int, default=64, help="of mamba2")
    p.add_argument("--head-dim", type=int, default=64, help="of mamba2")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=10, help="timed, after --warmup")
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--text", help="file whose bytes are trained on; random bytes without")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--serve", action="store_true",
                   help="read a number of steps a line, answer with their seconds")
    return p


def make_block(a):
    if a.block == "attention":
        return blocks.Attention(a.d_model, a.heads, a.kv_heads, a.seq)
    if a.block == "mlp":
        return blocks.Mlp(a.d_model, a.d_ff)
    if a.block == "mamba2":
        return blocks.Mamba2(a.d_model, a.d_state, a.head_dim)
    if a.block == "gla":
        return blocks.Gla(a.d_model, a.heads)
    return blocks.Moe(a.d_model, a.d_ff, a.experts, a.top_k)


class Trainer:
    """A model with its optimizer and data; Step() is a whole training step, clipping included."""

    def __init__(self, a):
        torch.set_num_threads(a.threads)
        torch.manual_seed(a.seed)
        self.a = a
        self.model = blocks.Model(lambda: make_block(a), a.d_model, a.layers)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.run = torch.compile(self.model) if a.form == "compile" else self.model
        text = open(a.text, "rb").read() if a.text else bytes(torch.randint(256, (1 << 20,)).tolist())
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def batch(self):
        starts = torch.randint(len(self.text) - self.a.seq, (self.a.batch, 1))
        rows = self.text[starts + torch.arange(self.a.seq + 1)].long()
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def step(self):
        started = time.perf_counter()
        loss = self.run(*self.batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started, loss.item()


def main():
    a = parser().parse_args()
    trainer = Trainer(a)
    for _ in range(a.warmup):
        trainer.step()
    if a.serve:
        print(json.dumps({"parameters": trainer.parameters}), flush=True)
        for line in sys.stdin:
            print(json.dumps([trainer.step()[0] for _ in range(int(line))]), flush=True)
        return
    seconds, losses = zip(*(trainer.step() for _ in range(a.steps)))
    step = statistics.median(seconds)
    print(json.dumps({"block": a.block, "form": a.form, "torch": torch.__version__,
                      "threads": a.threads, "parameters": trainer.parameters,
                      "step_seconds": step, "tokens_per_second": a.batch * a.seq / step,
                      "loss": losses[-1]}))


if __name__ == "__main__":
    main()
