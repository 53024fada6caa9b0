"""What the compiler makes of each CUDA kernel: registers, spills, the stack (arrays that are not in
registers), shared memory, and how many of its instructions are tensor-core products, asynchronous
copies, matrix loads and 16-byte accesses of global memory. A table in Markdown on standard output,
and under it what ptxas says costs speed (its notes C7500 to C7599: products that it makes wait for
each other). Needs nvcc, c++filt and no GPU.

    python3 bench/kernel_report.py [--arch sm_90a] [FILE.cu ...]
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTED = {
    "mma": r"\bmma\.sync",
    "wgmma": r"\bwgmma\.mma_async",
    "TMA loads": r"\bcp\.async\.bulk\.tensor",
    "cp.async": r"\bcp\.async\.c[ag]\.shared",
    "ldmatrix": r"\bldmatrix\.sync",
    "16-byte loads": r"\bld\.global(?:\.nc)?(?:\.v4\.(?:f32|u32|b32)|\.v2\.(?:f64|u64|b64))",
    "16-byte stores": r"\bst\.global(?:\.v4\.(?:f32|u32|b32)|\.v2\.(?:f64|u64|b64))",
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout + done.stderr


def readable(names):
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True).stdout
    out = {}
    for mangled, name in zip(names, plain.splitlines()):
        name = re.sub(r"tessera::(cuda::)?(\(anonymous namespace\)::)?|\(anonymous namespace\)::", "", name)
        name = re.sub(r"\b_GLOBAL__N__\w+::", "", name)
        name = re.sub(r"\((?:tessera::)?\w*\)(\d+)", r"\1", name)
        out[mangled] = re.sub(r"^void ", "", name.split(">(")[0] + (">" if ">(" in name else ""))
    return out


def report(source, nvcc, arch):
    flags = ["-std=c++20", "--expt-relaxed-constexpr", "-O3", "-I.", f"-arch={arch}"]
    with tempfile.TemporaryDirectory() as folder:
        keep = ["--keep", "--keep-dir", folder, "-o", f"{folder}/out.cubin"]
        said = run([nvcc, *flags, "-cubin", "-Xptxas", "-v", source, *keep])
        text = next(pathlib.Path(folder).glob("*.ptx")).read_text()
    kernels = {}
    for part in re.split(r"(?=\.(?:visible )?\.?entry )", text):
        if found := re.match(r"\.(?:visible )?\.?entry (\w+)", part):
            kernels[found[1]] = {k: len(re.findall(p, part)) for k, p in COUNTED.items()}
    for name, stack, spill, used in re.findall(
        r"Compiling entry function '(\w+)'[^\0]*?(\d+) bytes stack frame, (\d+) bytes spill stores"
        r"[^\0]*?: Used (.*)",
        said,
    ):
        row = kernels[name]
        row["stack frame bytes"] = int(stack)
        row["registers"] = int(re.match(r"(\d+)", used)[1])
        row["spilled bytes"] = int(spill)
        shared = re.search(r"(\d+) bytes smem", used)
        row["static shared"] = int(shared[1]) if shared else 0
    return kernels, notes(said)


# "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized ..."
def notes(said):
    found = re.findall(r"^.*(?:\(C75\d\d\)|Potential Performance Loss).*$", said, re.M)
    return [re.sub(r"^ptxas\s+\w+\s*:\s*", "", line).strip() for line in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args()
    columns = ["registers", "spilled bytes", "stack frame bytes", "static shared", *COUNTED]
    print("| file | kernel | " + " | ".join(columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    losses = []
    for source in options.files or sorted(ROOT.glob("kernels/*/*.cu")):
        kernels, said = report(source, options.nvcc, options.arch)
        losses += [f"- {source.name}: {note}" for note in said]
        names = readable(list(kernels))
        for mangled in sorted(kernels, key=lambda k: names[k]):
            row = kernels[mangled]
            print(f"| {source.name} | `{names[mangled]}` | " + " | ".join(str(row[c]) for c in columns) + " |", flush=True)
    print("\nptxas has no note of lost speed." if not losses else "\nNotes of ptxas:\n\n" + "\n".join(losses))


if __name__ == "__main__":
    main()
