"""What the passes came to: RESULTS.md and chart.svg."""

import datetime
import math
import os
import platform
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import chart
from roster import BASELINE

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
# Label logits in fp32 that lie further apart than this are no coin toss.
CLEAR = 0.5


@dataclass(frozen=True)
class Facts:
    """What is true of the whole run."""

    work: object  # workload.Workload
    answers: list[list[float]]  # fp32 label logits of every row
    maker: str
    plan: object  # compare.Plan
    stolen: float
    quick: bool


@dataclass(frozen=True)
class Line:
    """One row of the table that ran."""

    name: str
    ours: bool
    version: str
    settings: str
    rate: float
    spread: tuple[float, float]
    ratio: float
    p50: float  # seconds
    agreement: str
    clear_agreement: str
    change: float


def write(folder: Path, rows: list, facts: Facts) -> None:
    lines = ranked(rows, facts)
    skipped = [(row.entry.name, row.skipped) for row in rows if row.skipped]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(markdown(lines, skipped, facts))
    bars = [chart.Bar(line.name, line.ratio, line.ours) for line in lines]
    (folder / "chart.svg").write_text(chart.svg(bars, f"Posts per CPU-second, as multiples of {BASELINE}"))


def ranked(rows: list, facts: Facts) -> list[Line]:
    """The fastest first."""
    ran = [row for row in rows if row.passes and not row.skipped]
    base = next((median_rate(row) for row in ran if row.entry.name == BASELINE), None)
    if base is None:
        raise SystemExit(f"{BASELINE} did not run, so there is nothing to compare with")
    lines = [line(row, base, facts) for row in ran]
    return sorted(lines, key=lambda one: one.rate, reverse=True)


def rates(row) -> list[float]:
    return [one["posts"] / one["cpu"] for one in row.passes]


def median_rate(row) -> float:
    return statistics.median(rates(row))


def line(row, base: float, facts: Facts) -> Line:
    entry = row.entry
    settings = entry.how
    if len(entry.batches) > 1:
        settings += f", batch {row.batch}"
    threads = max(one["threads"] for one in row.passes)
    if threads > 1:
        settings += f"; **used {threads} threads**"
    clear = [post for post in row.logits if margin(facts.answers[post]) > CLEAR]
    return Line(
        name=entry.name,
        ours=entry.ours,
        version=row.version,
        settings=settings,
        rate=median_rate(row),
        spread=(min(rates(row)), max(rates(row))),
        ratio=median_rate(row) / base,
        p50=statistics.median(one["p50"] for one in row.passes),
        agreement=agreement(row, facts, list(row.logits)),
        clear_agreement=agreement(row, facts, clear),
        change=statistics.mean(abs(score_change(logits, facts.answers[post])) for post, logits in row.logits.items()),
    )


def margin(logits: list[float]) -> float:
    first, second = sorted(logits, reverse=True)[:2]
    return first - second


def best_label(logits: list[float]) -> int:
    return max(range(len(logits)), key=logits.__getitem__)


def score_change(logits: list[float], reference: list[float]) -> float:
    """How far the score, softmax over the labels, of the reference's label moved."""
    label = best_label(reference)
    return softmax(logits)[label] - softmax(reference)[label]


def softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def agreement(row, facts: Facts, posts: list[int]) -> str:
    """The part of these posts that got the label fp32 gives, and how many they are."""
    if not posts:
        return "-"
    same = sum(best_label(row.logits[post]) == best_label(facts.answers[post]) for post in posts)
    return f"{same / len(posts):.3f} ({len(posts)})"


def markdown(lines: list[Line], skipped: list[tuple[str, str]], facts: Facts) -> str:
    table = [
        "| engine | version | settings | posts per CPU-second (least-most) | ratio | p50, ms "
        "| agrees with fp32 | where fp32 is clear | score moved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in lines:
        low, high = one.spread
        table.append(
            f"| {'**' + one.name + '**' if one.ours else one.name} | {one.version} | {one.settings} "
            f"| {one.rate:.2f} ({low:.2f}-{high:.2f}) | {one.ratio:.1f} | {one.p50 * 1000:.0f} "
            f"| {one.agreement} | {one.clear_agreement} | {one.change:.4f} |"
        )
    for name, reason in skipped:
        table.append(f"| {name} | | left out: {reason.replace('|', '/')} | | | | | | |")
    return "\n".join([*preface(facts), "", *table, "", *notes(facts), ""])


def preface(facts: Facts) -> list[str]:
    work, plan = facts.work, facts.plan
    lengths = sorted({len(row) for row in work.rows})
    shown = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    text = [
        "# moderato and its peers",
        "",
        "Written by `benches/peers/run`; [README.md](README.md) says how it measures.",
        "",
        "![posts per CPU-second of each engine, as multiples of the naive one](chart.svg)",
        "",
        f"- When and where: {datetime.date.today()}, {cpu_model()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}. The hypervisor took {facts.stolen:.0%} of the machine's time meanwhile.",
        f"- The processor: {cpu_flags()}.",
        "- Model: SmolLM2-135M-Instruct, the same numbers for all.",
        f"- Work: {len(work.rows)} posts of {shown} tokens behind {len(work.prompt)} shared ones, token ids by "
        f"`{facts.maker}`; {plan.rounds} rounds, {plan.naive_rows} posts a round for whoever runs the whole prompt "
        "each time.",
    ]
    if facts.quick:
        text.append("- **A quick run (`--quick`): for trying, not for quoting.**")
    return text


def notes(facts: Facts) -> list[str]:
    clear = sum(margin(logits) > CLEAR for logits in facts.answers)
    given = Counter(facts.work.label_names[best_label(logits)] for logits in facts.answers)
    shares = ", ".join(f"{name} {count}" for name, count in given.most_common())
    return [
        "Ratio: to the naive worker, the whole prompt and one post at a time through ONNX Runtime in fp32. p50: the",
        "time that the batch of a post takes, without any queue. Agreement: the part of the posts given the label that",
        "fp32 gives them, with their number in brackets; a naive engine judges fewer. Where fp32 is clear: its first",
        f"label logit leads the second by more than {CLEAR} ({clear} of {len(facts.answers)} posts). Score moved:",
        "how far, on average, the score (0 to 1, softmax over the labels) of fp32's label is from fp32's.",
        "",
        f"The labels that fp32 gave: {shares}. The model is not tuned for the task; the more one label",
        "prevails, the less an agreement says, and the more the moved score does.",
    ]


def cpu_info() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_model() -> str:
    info = cpu_info()
    return f"{info.get('model name', platform.machine())} (family {info.get('cpu family')}, model {info.get('model')})"


def cpu_flags() -> str:
    has = set(cpu_info().get("flags", "").split())
    there, missing = ([flag for flag in FLAGS if (flag in has) == wanted] for wanted in (True, False))
    return f"{', '.join(there) or 'none of the flags that matter here'}; without {', '.join(missing) or 'none of them'}"
