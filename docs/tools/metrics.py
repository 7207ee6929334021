"""Reads every metric out of src/telemetry/metrics.rs, for the tests of the chart and of the documents."""

import re
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/telemetry/metrics.rs"
ENTRY = re.compile(r'^    [A-Z_]+ = (\w+) "([^"]+)" "([^"]*)" \["([^"]*)"\]\s+"([^"]+)";', re.MULTILINE)


@dataclass(frozen=True)
class Metric:
    kind: str
    name: str
    unit: str
    attributes: str
    meaning: str

    @property
    def at_metrics(self) -> str:
        """The name that Prometheus sees."""
        seconds = "_seconds" if self.unit == "s" else ""
        return self.name.replace(".", "_") + seconds + ("_total" if self.kind == "Counter" else "")

    @property
    def labels(self) -> set[str]:
        """`label, action: allow, review; answered_by` names three."""
        names = [name.strip() for part in self.attributes.split(";") for name in part.split(":")[0].split(",")]
        return {name for name in names if name}


def metrics(source: str | None = None) -> list[Metric]:
    """All of them, in the order of the code."""
    text = SOURCE.read_text() if source is None else source
    table = re.search(r"^metrics! \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)[1]
    found = [Metric(*entry) for entry in ENTRY.findall(table)]
    if len(found) != table.count(";\n"):
        # Attributes have semicolons of their own, but never at the end of a line.
        raise SystemExit(f"{SOURCE.name}: {table.count(chr(59) + chr(10))} entries, of which {len(found)} could be read")
    return found
