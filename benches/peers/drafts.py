"""Writing compared: tokens for each CPU-second behind 460 tokens of context, one row at a time and eight together.

    python drafts.py [--only WORD] [--rounds N] [--out FOLDER]

Needs what `setup` sets up, `make build`, and `make draft-models`. As in compare.py each engine is a process of its own
with one thread, and the engines take turns. Writes DRAFTS.md.
"""

import argparse
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import report
from compare import HERE, Engine, EngineError, cpu_ticks, make_work, rotate, say
from roster import Entry, draft_roster
from workload import ROOT

TOKENS = 64
LARGEST = 8


class Writer(Engine):
    """An engine that is asked for text."""

    def rehearse(self, batch: int, count: int) -> dict:
        return self._ask({"rows": self._work.rows[:1], "tokens": 4})

    def write(self, batch: int, place: int) -> dict:
        """Rows that no earlier pass had."""
        self.start()
        rows = self._work.rows[place : place + batch]
        shortest = min(map(len, rows))  # not every engine pads
        return self._ask({"rows": [row[-shortest:] for row in rows], "tokens": TOKENS})


@dataclass
class Row:
    entry: Entry
    version: str = ""
    skipped: str = ""
    # By batch size, tokens for each CPU-second of each round.
    rates: dict[int, list[float]] = field(default_factory=dict)


def play(row: Row, writer: Writer, number: int) -> None:
    """One engine's turn: each batch size once."""
    try:
        writer.start()
        row.version = writer.version
        for batch in row.entry.batches:
            told = writer.write(batch, number * LARGEST)
            row.rates.setdefault(batch, []).append(told["tokens"] / told["cpu"])
            say(f"  {batch} rows: {row.rates[batch][-1]:.1f} tokens per CPU-second")
    except EngineError as error:
        row.skipped = str(error)
        say(f"  left out: {error}")
    writer.leave_room()


def markdown(rows: list[Row], rounds: int, context: int, stolen: float) -> str:
    ran = [row for row in rows if not row.skipped]
    ours = next((row for row in ran if row.entry.ours), None)

    def cell(row: Row, batch: int) -> str:
        rates = row.rates[batch]
        ratio = f", {statistics.median(ours.rates[batch]) / statistics.median(rates):.2f}" if ours else ""
        return f"{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f}){ratio}"

    lines = [
        "# Writing: moderato and its peers",
        "",
        f"Written by `benches/peers/drafts.py` on {report.cpu_model()}; the hypervisor took {stolen:.0%} meanwhile.",
        f"The processor: {report.cpu_flags()}. {rounds} rounds; {context} tokens of context, {TOKENS} tokens written",
        "for each row, the first left out; one thread; end tokens ignored. Tokens per CPU-second of the process:",
        "median (least-most), and how many times as many the first row writes.",
        "",
        "| engine | version | settings | 1 row | 8 rows |",
        "|---|---|---|---|---|",
    ]
    for row in ran:
        name = f"**{row.entry.name}**" if row.entry.ours else row.entry.name
        lines.append(f"| {name} | {row.version} | {row.entry.how} | {cell(row, 1)} | {cell(row, 8)} |")
    for row in rows:
        if row.skipped:
            lines.append(f"| {row.entry.name} | | left out: {row.skipped.replace('|', '/')} | | |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="moderato and its peers writing")
    parser.add_argument("--only", default="", help="engines with this word in their name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE, help="where DRAFTS.md goes")
    arguments = parser.parse_args()
    models = Path(os.environ.get("MODERATO_BENCH_MODELS", ROOT / ".cache/models")).resolve()
    work, texts, _ = make_work(models, arguments.rounds * LARGEST)
    rows = [Row(entry) for entry in draft_roster() if arguments.only in entry.name]
    writers = [Writer(row.entry, work, texts, models) for row in rows]
    before = cpu_ticks()
    try:
        for number in range(arguments.rounds):
            for row, writer in zip(rotate(rows, number), rotate(writers, number)):
                if not row.skipped:
                    say(f"round {number + 1} of {arguments.rounds}: {row.entry.name}")
                    play(row, writer, number)
    finally:
        for writer in writers:
            writer.stop()
    total, stolen = (after - start for after, start in zip(cpu_ticks(), before))
    context = len(work.prompt) + len(work.rows[0])
    (arguments.out / "DRAFTS.md").write_text(markdown(rows, arguments.rounds, context, stolen / total))
    print(f"{arguments.out / 'DRAFTS.md'} written")


if __name__ == "__main__":
    main()
