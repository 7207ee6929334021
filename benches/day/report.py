"""What the day was: its figures, what they fail to prove, a chart and a table."""

from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from chart import Line, Panel, svg

LATER_THAN_TOLD = 1.25  # the drain may take so much longer than was told
SETTLE_SECONDS = 15  # after a step; a rebalance later than that has another cause
GENERATIONS_A_WORKER = 2  # cooperative-sticky: one in which partitions are given up, one in which they are taken


@dataclass(frozen=True)
class Sample:
    at: float
    arriving: float
    ends: int  # of the topic, all partitions together
    committed: int
    judged: float  # by all workers since the begin
    lag: float  # as the workers tell
    told: int  # partitions that tell it
    drain: float  # as the worst off of the workers tells
    poll_age: float  # since the polling loop of a worker last moved, the longest
    replicas: int
    generation: int

    @property
    def uncommitted(self) -> int:
        return self.ends - self.committed


def figures(samples: list[Sample], partitions: int, minute: float, falls: float) -> dict:
    """`falls`: when load falls below what the pool can do."""
    peak = [it for it in samples if falls - minute / 2 <= it.at < falls]
    judging = (peak[-1].judged - peak[0].judged) / (peak[-1].at - peak[0].at)
    after = next(it.arriving for it in samples if it.at > falls)
    left, drained_told = peak[-1].drain * judging, None
    for old, now in pairwise(it for it in samples if it.at > falls):
        left -= (judging - old.arriving) * (now.at - old.at)
        if left <= 0:
            drained_told = now.at - falls
            break
    quiet = [it.told == partitions and it.lag < after for it in samples]
    drained = [it.at for number, it in enumerate(samples) if it.at > falls and all(quiet[number : number + 3])]
    pairs = list(pairwise(samples))
    steps = [(now.at, now.replicas - before.replicas) for before, now in pairs if now.replicas != before.replicas]
    turned = [now.at for before, now in pairs if now.generation != before.generation]
    late = [at for at in turned if not any(0 <= at - step <= SETTLE_SECONDS for step, _ in steps)]
    still = [now.at - old.at for old, now in pairs if now.judged == old.judged and old.uncommitted > old.arriving]
    whole = [it for it in samples if it.told == partitions]
    return {
        "peak_load": peak[-1].arriving,
        "peak_judged": judging,
        "largest_lag": max(it.lag for it in samples),
        "largest_uncommitted": max(it.uncommitted for it in samples),
        "largest_replicas": max(it.replicas for it in samples),
        "last_replicas": samples[-1].replicas,
        "steps": len(steps),
        "steps_up": sum(change > 0 for _, change in steps),
        "workers_moved": sum(abs(change) for _, change in steps),
        "generations": samples[-1].generation - samples[0].generation,
        "generations_late": len(late),
        "still_seconds": sum(still),
        "looks": len(samples),
        "looks_without_all": len(samples) - len(whole),
        "lag_difference": median(it.uncommitted - it.lag for it in whole),
        "lag_at_fall": peak[-1].lag,
        "after_peak": after,
        "drain_told_alone": peak[-1].drain,
        "drain_told": drained_told,
        "longest_poll_age": max(it.poll_age for it in samples),
        "drain_took": drained[0] - falls if drained else None,
    }


def faults(told: dict) -> list[str]:
    """What the day was to prove and did not."""
    wrong = []
    if told["drain_took"] is None or told["drain_told"] is None:
        wrong.append("the lag did not drain")
    elif told["drain_took"] > told["drain_told"] * LATER_THAN_TOLD:
        wrong.append(f"the lag took {told['drain_took']:.0f} s to drain, told were {told['drain_told']:.0f} s")
    if told["generations_late"] or told["expelled"]:
        wrong.append(f"{told['generations_late']} rebalances without a step, {told['expelled']} members expelled")
    if told["generations"] > GENERATIONS_A_WORKER * told["workers_moved"]:
        wrong.append(f"{told['generations']} rebalances for {told['workers_moved']} workers that came or went")
    account = told["reconcile"]
    if account["exit"] or account["duplicates"]["count"] or account["expected"] != told["posts"]:
        wrong.append("reconcile does not say whole, without repeats")
    if told["refused"] or any(told["exits"]):
        wrong.append(f"{told['refused']} posts refused by the broker, workers' exit codes {told['exits']}")
    return wrong


def drawing(samples: list[Sample], told: dict) -> str:
    judged = [(now.at, (now.judged - old.judged) / (now.at - old.at)) for old, now in zip(samples, samples[5:])]
    turned = [now.at for before, now in pairwise(samples) if now.generation != before.generation]

    def line(name: str, kind: str, value, stepped: bool = False) -> Line:
        return Line(name, kind, [(it.at, value(it)) for it in samples], stepped)

    load = [line("arriving", "first", lambda it: it.arriving, True), Line("judged, mean of 5 s", "second", judged)]
    lag = [
        line("by the broker: not committed", "first", lambda it: it.uncommitted),
        line("by the workers: lag", "second", lambda it: it.lag),
    ]
    replicas = [line("replicas", "second", lambda it: it.replicas, True)]
    words = (
        f"Load rises to {told['peak_load']:.0f} posts/s and falls; lag reaches {told['largest_lag']:.0f} posts; "
        f"workers rise from 1 to {told['largest_replicas']} and fall to {told['last_replicas']}."
    )
    panels = [Panel("posts/s", load), Panel("posts that wait", lag), Panel("workers", replicas, ("rebalances", turned))]
    return svg("A simulated day: load, lag and replicas", words, panels, samples[-1].at)


def table(told: dict) -> str:
    account = told["reconcile"]
    took = "not within the day" if told["drain_took"] is None else f"{told['drain_took']:.0f} s"
    rows = [
        ("Date", told["date"]),
        ("Machine", told["machine"]),
        ("Program", f"{told['program']}, Apache Kafka {told['kafka']}"),
        ("Cores", f"{told['cpu_busy']:.0%} busy, of all time {told['cpu_ours']:.0%} with this run; stolen {told['cpu_stolen']:.1%}"),
        ("A minute", f"{told['minute']:g} s"),
        ("One worker", f"{told['one_worker']:.1f} posts/s, so `lagThreshold` is {told['lagThreshold']}"),
        ("Posts", f"{told['posts']:,}"),
        ("At the peak", f"{told['peak_load']:.0f} posts/s arrive, {told['peak_judged']:.0f} posts/s are judged in its second half"),
        ("Most that waited", f"{told['largest_lag']:,.0f} posts by the workers' metric, {told['largest_uncommitted']:,} by the broker"),
        ("Lag by the broker less lag by the workers", f"{told['lag_difference']:.0f} posts in the median"),
        ("Looks at which a partition was told by no worker", f"{told['looks_without_all']} of {told['looks']}, one a second"),
        ("Posts waited and none was judged", f"{told['still_seconds']:.0f} s in all"),
        ("Longest that a polling loop stood still", f"{told['longest_poll_age']:.1f} s"),
        ("Replicas", f"1 to {told['largest_replicas']} to {told['last_replicas']}"),
        ("Steps of the autoscaler", f"{told['steps']}, {told['steps_up']} of them up; {told['workers_moved']} workers came or went"),
        ("Rebalances", f"{told['generations']} generations, {told['generations'] / max(told['steps'], 1):.1f} a step"),
        (f"Rebalances later than {SETTLE_SECONDS} s after a step", told["generations_late"]),
        ("Members expelled by the broker", told["expelled"]),
        ("`moderato_rebalances_total`, all workers", told["rebalances_total"]),
        ("Waiting when load fell", f"{told['lag_at_fall']:,.0f} posts, and {told['after_peak']:.0f} posts/s went on arriving"),
        ("`moderato_time_to_drain_seconds` then", f"{told['drain_told_alone']:.0f} s if nothing more arrived"),
        ("Time to drain told, with what went on arriving", f"{told['drain_told'] or float('inf'):.0f} s"),
        ("Time to drain measured", took),
        (
            "`moderato reconcile`",
            f"exit code {account['exit']}: {account['expected']:,} expected, {account['verdicts']:,} verdicts, "
            f"{account['dead_letters']} dead letters, {account['missing']['count']} missing, "
            f"{account['duplicates']['count']} twice, {account['strangers']['count']} strangers",
        ),
    ]
    return "| What | Measured |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
