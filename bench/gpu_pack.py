"""What bench/gpu_check --pack makes: one file with all that a GPU machine needs for a check."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-pack"
SCRIPTS = ["bench/gpu_check", "bench/gpu_results.py", "bench/peers/gpu_ops.py", "configs/quickstart.yaml"]
# Pure Python, so they run on what the other machine has.
WHEELS = ["fla-core", "einops"]
# Of the system, and the GPU's own: not carried.
NOT_CARRIED = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s|cuda|cublasLt|cublas|cudart)\.so|ld-linux|linux-vdso")
MOST_BYTES = 40e6


def fail(message):
    sys.exit(f"gpu_check: {message}")


def build(programs):
    """The programs with all libraries in them but the C library and libgcc, for another machine."""
    lacking = [t for t in ("cmake", "ninja", "g++", "strip") if not shutil.which(t)]
    if not shutil.which("nvcc") and not pathlib.Path("/usr/local/cuda/bin/nvcc").exists():
        lacking.append("nvcc")
    if lacking:
        fail(f"cannot build: there is no {', no '.join(lacking)}")
    log = ROOT / f"{BUILD.name}.log"
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 "-DTESSERA_CUDA=ON", "-DTESSERA_STATIC=ON"]
    with open(log, "w") as out:
        if subprocess.run(configure, stdout=out, stderr=subprocess.STDOUT).returncode:
            fail(f"CMake says in {log} what this machine lacks:\n{log.read_text()[-2000:]}")
    if subprocess.run(["ninja", "-C", BUILD, *(p.removeprefix("lib").removesuffix(".so") for p in programs)]).returncode:
        fail("the build failed")


def pack(file, programs, text_name, commit):
    build(programs)
    text = ROOT / "build" / text_name
    if not text.exists():
        fail(f"there is no {text}; ./setup --no-run makes it")
    with tempfile.TemporaryDirectory(prefix="gpu_check.") as work:
        work = pathlib.Path(work)
        contents = {name: ROOT / name for name in SCRIPTS}
        contents[text_name] = text
        (work / "commit").write_text(commit + "\n")
        contents["commit"] = work / "commit"
        for program in programs:
            if not (BUILD / program).exists():
                fail(f"there is no {BUILD / program}")
            subprocess.run(["strip", "-s", "-o", work / program, BUILD / program], check=True)
            contents[program] = work / program
            said = subprocess.run(["ldd", BUILD / program], capture_output=True, text=True).stdout
            for name, path in re.findall(r"(\S+) => (/\S+)", said):
                if not NOT_CARRIED.match(name):
                    contents[f"lib/{name}"] = pathlib.Path(path).resolve()
        wheels = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                  "--dest", work / "wheels"]
        for wheel in WHEELS:
            if subprocess.run([*wheels, wheel]).returncode:
                print(f"gpu_check: no wheel of {wheel}: the peers that need it will be missing", file=sys.stderr)
        for wheel in sorted((work / "wheels").glob("*.whl")):
            contents[f"wheels/{wheel.name}"] = wheel
        with tarfile.open(file, "w:xz") as tar:
            for name, path in sorted(contents.items()):
                tar.add(path, name)
    size = os.path.getsize(file)
    print(f"{file}: {size / 1e6:.1f} MB; carry it and bench/gpu_check, then gpu_check --packed {os.path.basename(file)}")
    if size > MOST_BYTES:
        fail(f"{file} is larger than {MOST_BYTES / 1e6:.0f} MB, which is too much to carry")
