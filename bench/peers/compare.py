"""Training steps of the five block families, Tessera beside PyTorch, in turns in one session.

    python bench/peers/compare.py [--rounds 5] [--json FILE] [BLOCK ...]

Both sides train the same model (byte embedding, layers of x + block(norm(x)), norm, head) of the same
shapes on the same text with AdamW and clipping, in fp32, on as many threads. PyTorch's processes
stay alive and warm; in every round each side runs a few steps while the others wait, so a busy or
throttled machine falls on all alike. PyTorch counts by the better of its forms, eager or compiled.
Run it in the root of a built tree, with a Python that has PyTorch.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
SHAPE = {"d_model": 256, "layers": 4, "batch": 8, "seq": 512}
# Each block with the keys of its config and the flags of torch_train.py that make the same shapes.
BLOCKS = {
    "attention": ("attention: {heads: 4}", ["--heads", "4", "--kv-heads", "4"]),
    "mlp": ("mlp: {d_ff: 704}", ["--d-ff", "704"]),
    "mamba2": ("mamba2: {d_state: 64, head_dim: 64}", ["--d-state", "64", "--head-dim", "64"]),
    "gla": ("gla: {heads: 4}", ["--heads", "4"]),
    "moe": ("moe: {experts: 8, top_k: 2, d_ff: 704}",
            ["--experts", "8", "--top-k", "2", "--d-ff", "704"]),
}
CONFIG = """\
model:
  d_model: {d_model}
  vocab: bytes
  layers: [{{repeat: {layers}, layers: [{{{block}}}]}}]
train: {{data: {{text: {text}}}, eval_every: 0, steps: {steps}, batch: {batch}, seq: {seq}, lr: 1e-3}}
"""


class Torch:
    """One block model in a process of its own that trains a few steps whenever it is asked to."""

    def __init__(self, block, form, a):
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in SHAPE.items()] + BLOCKS[block][1]
        self.process = subprocess.Popen(
            [sys.executable, HERE / "torch_train.py", "--block", block, "--form", form, "--serve",
             "--text", a.text, "--threads", str(a.threads), *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parameters = json.loads(self.process.stdout.readline())["parameters"]

    def seconds(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def tessera_seconds(block, steps, a, folder):
    """The seconds of each step of a training run of its own, without the first two."""
    config = pathlib.Path(folder, f"{block}.yaml")
    config.write_text(CONFIG.format(block=BLOCKS[block][0], text=pathlib.Path(a.text).resolve(),
                                    steps=steps + 2, **SHAPE))
    run = tempfile.mkdtemp(dir=folder)
    subprocess.run([a.tessera, "train", config, "--run", f"{run}/run", "--threads", str(a.threads),
                    "--quiet"], check=True, stdout=subprocess.DEVNULL)
    rows = map(json.loads, open(f"{run}/run/metrics.jsonl"))
    return [row["seconds"] for row in rows if "loss" in row][2:]


def compare(block, a, folder):
    peers = {form: Torch(block, form, a) for form in a.forms}
    ours, theirs = [], {form: [] for form in a.forms}
    for _ in range(a.rounds):
        ours.append(statistics.median(tessera_seconds(block, a.steps, a, folder)))
        for form, peer in peers.items():
            theirs[form].append(statistics.median(peer.seconds(a.steps)))
    tokens = SHAPE["batch"] * SHAPE["seq"]
    best = min(theirs, key=lambda form: statistics.median(theirs[form]))
    ratios = [t / o for t, o in zip(theirs[best], ours)]
    row = {"block": block, "tessera_tokens_per_second": tokens / statistics.median(ours),
           "torch_form": best, "ratio": statistics.median(ratios),
           "ratio_range": [min(ratios), max(ratios)],
           "torch_parameters": peers[best].parameters,
           **{f"torch_{form}_tokens_per_second": tokens / statistics.median(s)
              for form, s in theirs.items()}}
    for peer in peers.values():
        peer.close()
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("blocks", nargs="*", metavar="BLOCK", help=f"of {', '.join(BLOCKS)}; all without")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=5, help="steps of each side in a round")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--forms", nargs="+", default=["eager", "compile"], choices=["eager", "compile"])
    p.add_argument("--tessera", default="build/tessera")
    p.add_argument("--text", default="build/data/english.txt")
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    unknown = set(a.blocks) - set(BLOCKS)
    if unknown:
        p.error(f"unknown block {', '.join(sorted(unknown))}; one of {', '.join(BLOCKS)}")
    print(f"{'block':10} {'tessera':>9} " + " ".join(f"{form:>9}" for form in a.forms) +
          "   tokens/s; ratio (least .. most)")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for block in a.blocks or BLOCKS:
            row = compare(block, a, folder)
            rows.append(row)
            speeds = [row["tessera_tokens_per_second"]]
            speeds += [row[f"torch_{form}_tokens_per_second"] for form in a.forms]
            low, high = row["ratio_range"]
            print(f"{block:10} " + " ".join(f"{s:9.0f}" for s in speeds) +
                  f"   {row['ratio']:.2f} ({low:.2f} .. {high:.2f})", flush=True)
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"shape": SHAPE, "threads": a.threads,
                                                    "blocks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
