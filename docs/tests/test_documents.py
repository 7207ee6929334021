"""What the documents name is there: links, tests, alerts, codes, reasons, metrics, keys, figures."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs/tools"))
import configuration  # noqa: E402
import metrics  # noqa: E402

DOCUMENTS = [
    *[ROOT / name for name in ["README.md", "SECURITY.md", "CONTRIBUTING.md", "docker/README.md", "examples/producers/README.md"]],
    *sorted((ROOT / "docs").glob("*.md")),
]
CONFIG = json.loads(configuration.SCHEMA.read_text())
FUNCTIONS = {
    name
    for folder in ["src", "integration-tests", "fuzz/fuzz_targets"]
    for file in (ROOT / folder).rglob("*.rs")
    for name in re.findall(r"\bfn (\w+)", file.read_text())
}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sections(under: str) -> set[str]:
    """The names of the runbook's subsections under a heading."""
    part = re.search(rf"^## {re.escape(under)}$(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)[1]
    return set(re.findall(r"^### (\S+)$", part, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target == "https://github.com/cloudevents/spec":
            continue
        assert "://" not in target, f"{target} leads outside"
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_test_that_is_named_exists(document):
    for name in set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){4,})`", prose(document))):
        if name.startswith(("moderato_", "messaging_", "onnxruntime_")):
            continue
        assert name in FUNCTIONS, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_key_that_is_named_exists(document):
    leaves = configuration.leaves(CONFIG)
    known = {key[:end] for key in leaves for end in [*(dot.start() for dot in re.finditer(r"\.", key)), None]}
    sections = [name for name, node in CONFIG["properties"].items() if "properties" in node]
    assert len(sections) > 5
    for key in set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_.]+)[`:]", prose(document))) - {"model.onnx"}:
        assert key in known or key.startswith("kafka.options."), key


def flags(verb: str) -> set[str]:
    """Those of a verb, read from its arguments' definitions; those that all verbs have included."""
    cli, name = ROOT / "src/cli", verb.replace("-", "_")
    files = [cli / "mod.rs", *cli.glob(f"{name}*.rs"), *cli.glob(f"{name}/*.rs")]
    defined = r"#\[arg\(((?:(?!\)\]).)*?\blong\b(?:(?!\)\]).)*)\)\]\s*(?:pub(?:\(\w+\))? )?(\w+):"
    found = [it for file in files for it in re.findall(defined, file.read_text(), re.DOTALL)]
    spelt = [re.search(r'long = "([\w-]+)"', how) for how, _ in found]
    return {"--help"} | {f"--{named[1] if named else field.replace('_', '-')}" for named, (_, field) in zip(spelt, found)}


def test_flags_are_read_from_the_definitions():
    assert {"--set", "--show-text", "--json"} <= flags("explain") and "--html" not in flags("explain")
    assert {"--public-key", "--signing-key", "--retention-class"} <= flags("archive")


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_command_of_the_program_has_a_verb_and_flags_that_exist(document):
    verbs = re.findall(r"^    ([A-Z]\w+)[ ({]", (ROOT / "src/cli/mod.rs").read_text(), re.MULTILINE)
    verbs = {re.sub(r"(?<!^)([A-Z])", r"-\1", verb).lower() for verb in verbs}
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    typed = [re.match(r"(?:\$ )?(?:\S*/)?moderato ([a-z-]+)([^#|>]*)", line) for line in lines]
    for verb, rest in (it.groups() for it in typed if it):
        assert verb in verbs, verb
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= flags(verb), (verb, rest)


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_metric_that_is_named_exists(document):
    names = [name for metric in metrics.metrics() for name in [metric.at_metrics, *metric.labels]]
    for name in set(re.findall(r"\b((?:moderato|messaging)_[a-z_]+)", document.read_text())):
        assert any(known.startswith(name) for known in names), name


def test_the_page_of_metrics_is_what_the_code_says():
    told = re.findall(r"^\| (`.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    said = [(f"`{it.name}`", f"`{it.at_metrics}`", it.unit, it.attributes, it.meaning) for it in metrics.metrics()]
    assert told == [" | ".join(columns) for columns in said], "moderato schema metrics > docs/metrics.md"


def test_the_page_of_configuration_is_what_the_schema_says():
    assert configuration.PAGE.read_text() == configuration.page(CONFIG), "run docs/tools/configuration.py"


def test_every_key_of_the_configuration_has_a_type_a_default_and_a_meaning():
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \| (.+\.) \|$", configuration.PAGE.read_text(), re.MULTILINE)
    assert {key for key, *_ in rows} == set(configuration.leaves(CONFIG))
    assert len(rows) > 60


def test_a_metric_that_could_not_be_read_is_found():
    whole = metrics.SOURCE.read_text()
    assert len(metrics.metrics(whole)) > 30
    with pytest.raises(SystemExit, match="could be read"):
        metrics.metrics(whole.replace('= Counter "moderato.verdicts"', "= Counter VERDICTS_NAME"))


def test_the_runbook_has_a_section_for_each_alert_and_no_other():
    rules = yaml.safe_load((ROOT / "helm/moderato/alerts/moderato.yaml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert sections("Alerts") == {rule["alert"] for rule in alerts}
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("alert", sorted(sections("Alerts")))
def test_an_alert_has_what_is_at_stake_three_commands_and_causes(alert):
    section = re.search(rf"^### {alert}$(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL)[1]
    assert "**At stake:**" in section
    commands = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()
    assert len(commands) == 3
    verbs = re.findall(r"^    ([A-Z]\w+)[ ({]", (ROOT / "src/cli/mod.rs").read_text(), re.MULTILINE)
    verbs = {re.sub(r"(?<!^)([A-Z])", r"-\1", verb).lower() for verb in verbs}
    used = [command.split()[1] for command in commands if command.startswith("moderato ")]
    assert used and set(used) <= verbs
    assert len(re.findall(r"^- ", section, re.MULTILINE)) >= 2


def test_the_runbook_has_a_section_for_each_exit_code_name_and_each_reason():
    codes = re.findall(r'Fatal::.+ => "(\w+)"', (ROOT / "src/error.rs").read_text())
    assert sections("Exit code names") == set(codes)
    reasons = re.findall(r'Reason::\w+ => "(\w+)"', (ROOT / "src/rejection.rs").read_text())
    assert sections("Dead-letter reasons") == set(reasons)


def test_the_figures_of_responsible_use_are_those_of_the_card():
    text = (ROOT / "docs/responsible-use.md").read_text()
    part = re.search(r"## What is known of the default model(.*?)\n## ", text, re.DOTALL)[1]
    card = (ROOT / "model/CARD.md").read_text()
    figures = re.findall(r"\d+\.\d+(?: % \([^)]+\)| \([^)]+\))?", part)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in card] == []


def test_the_figures_of_sizing_are_measured_ones():
    measured = (ROOT / "README.md").read_text() + (ROOT / "benches/peers/DRAFTS.md").read_text()
    table = re.search(r"## Measured(.*?)\*\*Example", (ROOT / "docs/sizing.md").read_text(), re.DOTALL)[1]
    figures = re.findall(r"\d+\.\d|\d+ / \d+ / \d+", table)
    assert len(figures) == 6 and all(figure in measured for figure in figures)
