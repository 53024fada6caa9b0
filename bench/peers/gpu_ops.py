"""The cases of bench_gpu by other libraries on the same GPU, at the same shapes and number types:
PyTorch (torch.compile for what it fuses, scaled_dot_product_attention by FlashAttention and cuDNN,
matmul), flash-linear-attention and mamba-ssm, each where it imports. Reads bench_gpu's JSON, adds
"peers" to its rows (seconds forward, and forward and backward) and writes it to another file, anew
after each row: whoever stops this program has what was measured. What compiles first comes last.

    python3 bench/peers/gpu_ops.py build/bench_gpu.json with_peers.json
"""

import json
import os
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as e:
    sys.exit(f"gpu_ops: {e}: the peers need PyTorch with CUDA")

missing = {}
try:
    from fla.ops.gla import chunk_gla
except Exception as e:  # its import fails in many ways, and each is a reason to say
    chunk_gla, missing["flash-linear-attention"] = None, f"{type(e).__name__}: {e}"
try:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
except Exception as e:
    mamba_chunk_scan_combined, missing["mamba-ssm"] = None, f"{type(e).__name__}: {e}"
try:
    from flash_attn import flash_attn_func
except Exception as e:
    flash_attn_func, missing["flash-attn"] = None, f"{type(e).__name__}: {e}"

ROUNDS = 7


def seconds(work):
    """Median of ROUNDS of some 20 ms each, after two warm-up calls."""
    for _ in range(2):
        work()
    torch.cuda.synchronize()

    def time(calls):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / calls

    calls = max(1, min(1000, int(0.02 / time(3))))
    return sorted(time(calls) for _ in range(ROUNDS))[ROUNDS // 2]


def normal(*shape, dtype=torch.bfloat16, scale=1.0, mean=0.0):
    x = torch.randn(*shape, device="cuda", dtype=torch.float32) * scale + mean
    return x.to(dtype).requires_grad_()


def timed(f, inputs):
    """Seconds of f(*inputs), and of that and its gradients."""
    with torch.no_grad():
        out = {"forward": seconds(lambda: f(*inputs))}
    y = f(*inputs)
    cotangent = torch.randn_like(y)
    wanted = [x for x in inputs if x.requires_grad]
    out["forward_backward"] = seconds(lambda: torch.autograd.grad(f(*inputs), wanted, cotangent))
    return out


def attention(s, dtype):
    shape = (s["B"], s["heads"], s["T"], s["K"])
    q, k, v = (normal(*shape) for _ in range(3))
    peers = {}
    if s["window"] == 0:
        for name, backend in {
            "PyTorch SDPA (FlashAttention)": SDPBackend.FLASH_ATTENTION,
            "PyTorch SDPA (cuDNN)": SDPBackend.CUDNN_ATTENTION,
        }.items():

            def sdpa(q, k, v, backend=backend):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

            peers[name] = lambda sdpa=sdpa: timed(sdpa, (q, k, v))
    if flash_attn_func:
        bthk = [x.detach().transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v)]
        window = (s["window"] - 1, 0) if s["window"] else (-1, -1)
        peers["flash-attn"] = lambda: timed(
            lambda q, k, v: flash_attn_func(q, k, v, causal=True, window_size=window), bthk
        )
    return peers


def ssd_scan(s, dtype):
    if not mamba_chunk_scan_combined:
        return {}
    x = normal(s["B"], s["T"], s["H"], s["P"])
    dt = normal(s["B"], s["T"], s["H"], mean=-3)
    b, c = (normal(s["B"], s["T"], s["G"], s["N"], scale=0.3) for _ in range(2))
    a = (-torch.exp(0.5 * torch.randn(s["H"], device="cuda"))).requires_grad_()
    bias, d = (normal(s["H"], dtype=torch.float32) for _ in range(2))
    scan = lambda x, dt, a, b, c, d, bias: mamba_chunk_scan_combined(
        x, dt, a, b, c, chunk_size=256, D=d, dt_bias=bias, dt_softplus=True
    )
    return {"mamba-ssm": lambda: timed(scan, (x, dt, a, b, c, d, bias))}


def gla_scan(s, dtype):
    if not chunk_gla:
        return {}
    q, k = (normal(s["B"], s["T"], s["H"], s["K"]) for _ in range(2))
    v = normal(s["B"], s["T"], s["H"], s["V"])
    g = normal(s["B"], s["T"], s["H"], s["K"], scale=0.01, mean=-0.05)
    return {"flash-linear-attention": lambda: timed(lambda *x: chunk_gla(*x)[0], (q, k, v, g))}


def linear(s, dtype):
    x, w = normal(s["M"], s["K"], dtype=dtype), normal(s["N"], s["K"], dtype=dtype, scale=0.02)
    return {"PyTorch (cuBLAS)": lambda: timed(F.linear, (x, w))}


def grouped_linear(s, dtype):
    # The dense product of as many FLOPs: the goal is a share of its rate.
    x, w = normal(s["rows"], s["K"]), normal(s["N"], s["K"], scale=0.02)
    peers = {"cuBLAS, dense, equal FLOPs": lambda: timed(F.linear, (x, w))}
    if hasattr(torch, "_grouped_mm") and not s["skewed"]:
        ws = normal(s["E"], s["K"], s["N"], scale=0.02)
        ends = torch.arange(1, s["E"] + 1, device="cuda", dtype=torch.int32) * (s["rows"] // s["E"])
        peers["PyTorch grouped_mm"] = lambda: timed(lambda x, w: torch._grouped_mm(x, w, ends), (x, ws))
    return peers


def pointwise(f, inputs):
    return lambda s, dtype: {"PyTorch, compiled": lambda: timed(torch.compile(f), inputs(s))}


def matrix(s):
    return normal(s["rows"], s["C"])


CASES = {
    "attention": attention,
    "ssd_scan": ssd_scan,
    "gla_scan": gla_scan,
    "linear": linear,
    "grouped_linear": grouped_linear,
    "add": pointwise(torch.add, lambda s: (matrix(s), matrix(s))),
    "swiglu": pointwise(lambda g, u: F.silu(g) * u, lambda s: (matrix(s), matrix(s))),
    "rms_norm": pointwise(
        lambda x, g: F.rms_norm(x, (x.shape[-1],), g, 1e-6), lambda s: (matrix(s), normal(s["C"]))
    ),
    "layer_norm": pointwise(
        lambda x, g: F.layer_norm(x, (x.shape[-1],), g), lambda s: (matrix(s), normal(s["C"]))
    ),
}


COMPILED = {"add", "swiglu", "rms_norm", "layer_norm"}


def write(document, path):
    with open(path + ".new", "w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    os.replace(path + ".new", path)


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("gpu_ops: this PyTorch finds no GPU")
    with open(sys.argv[1]) as file:
        document = json.load(file)
    document["peer_versions"] = {"PyTorch": torch.__version__}
    document["peers_missing"] = missing
    for row in sorted(document["cases"], key=lambda r: r["name"] in COMPILED):
        make = CASES.get(row["name"])
        if not make or "error" in row:
            continue
        dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
        row["peers"] = {}
        try:
            peers = make(row["shape"], dtype)
        except torch.OutOfMemoryError as e:
            peers, row["peers"]["all"] = {}, {"error": str(e).split(".")[0]}
        for name, run in peers.items():
            try:
                row["peers"][name] = run()
            except Exception as e:  # a peer that cannot is a result too
                row["peers"][name] = {"error": f"{type(e).__name__}: {e}".split("\n")[0]}
            print(f"{row['name']} {row['shape']} {name}: {row['peers'][name]}", file=sys.stderr)
            write(document, sys.argv[2])
        torch.cuda.empty_cache()
    write(document, sys.argv[2])


if __name__ == "__main__":
    main()
