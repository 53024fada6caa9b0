"""What runs leave behind, and the table of bench/gpu_check's results."""

import hashlib
import json
import re


def losses(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rows = [r for r in rows if "loss" in r]
    if not rows:
        raise ValueError(f"{directory.name}: metrics.jsonl has no loss")
    return rows


def middle(rows, key):
    return sorted(r[key] for r in rows)[len(rows) // 2]


def hash_of_weights(directory):
    files = sorted(directory.glob("checkpoints/*/model.safetensors"))
    if not files:
        raise ValueError(f"{directory.name} left no checkpoint")
    return hashlib.sha256(files[-1].read_bytes()).hexdigest()


def percent(part):
    return f"{100 * part['limit_seconds'] / part['seconds']:.0f} %" if part else ""


def milliseconds(part):
    return f"{part['seconds'] * 1e3:.3f}" if part else ""


def peers_of(row):
    said = []
    for name, peer in row.get("peers", {}).items():
        if "error" in peer:
            said.append(f"{name}: {peer['error']}")
            continue
        ratios = [f"{peer[way] / row[way]['seconds']:.2f}" for way in ("forward", "forward_backward")
                  if way in peer and way in row]
        said.append(f"{name}: {', '.join(ratios)}")
    return "; ".join(said)


def with_section(old, done):
    """The text of a README with the device's own section replaced; the others and the compiler's report
    stay."""
    lines = [f"## {done['device']}", "", f"{done['date']}, commit {done['commit']}, {done['seconds']:.0f} s.", ""]
    for name, found in done["steps"].items():
        facts = [found["status"] + (f" ({found['why']})" if "why" in found else "")]
        if "expected" in found:
            facts.append(f"{found['passed']} of {found['expected']} passed")
        if "summary" in found:
            facts.append(found["summary"])
        if "largest_apart" in found:
            facts.append(f"{found['steps']} steps, losses within {found['largest_apart']['gpu']:.1e} of the CPU's")
        if rates := found.get("tokens_per_second"):
            facts.append(", ".join(f"{n} {r:.0f} tokens/s" for n, r in rates.items()))
        lines.append(f"- {name}: {'; '.join(facts)}")
    lines.append("")
    if times := done.get("times"):
        lines += [
            f"Copies {times['copy_bytes_per_second'] * 1e-9:.0f} GB/s, products "
            f"{times['bf16_flops_per_second'] * 1e-12:.0f} TFLOP/s in bf16 and "
            f"{times['fp32_flops_per_second'] * 1e-12:.1f} in fp32, measured in the same run. A ratio above 1 "
            f"means that Tessera is faster. Not there: {', '.join(times.get('peers_missing', {})) or 'nothing'}.",
            "",
            "| op | shape | ms | of the limit | with backward, ms | of the limit | peers: forward, with backward |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in times["cases"]:
            shape = " ".join(f"{k}={v}" for k, v in row["shape"].items())
            one, both = row.get("forward"), row.get("forward_backward")
            lines.append(f"| {row['name']} {row['dtype']} | {shape} | {milliseconds(one)} | {percent(one)} | "
                         f"{milliseconds(both)} | {percent(both)} | {row.get('error') or peers_of(row)} |")
        lines.append("")
    sections = re.split(r"(?m)^(?=## )", old)
    head = sections[0].split("\nNothing has been timed on a GPU")[0].rstrip() + "\n\n"  # no longer so
    rest = [s for s in sections[1:] if not s.startswith(f"## {done['device']}\n")]
    return head + "\n".join(lines) + "\n" + "".join(rest)
