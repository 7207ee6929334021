"""The workflow fits GitHub's schema, pins what it runs, and caches by lock files that are there."""

import json
import re
import subprocess
from importlib import resources
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github/workflows/ci.yaml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_fits_githubs_schema():
    schemas = resources.files("check_jsonschema") / "builtin_schemas/vendor"
    schema = json.loads((schemas / "github-workflows.json").read_text())
    # YAML 1.1 reads the key `on` as true.
    workflow = {("on" if key is True else key): value for key, value in WORKFLOW.items()}
    jsonschema.validators.validator_for(schema)(schema).validate(workflow)


def test_every_action_is_pinned_by_commit_with_its_version_beside_it():
    used = re.findall(r"uses: (.+)", TEXT)
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_the_tests_run_on_the_images_rust():
    rust = re.search(r"^ARG RUST=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert WORKFLOW["jobs"]["test"]["container"] == rust
    assert any(step.get("run") == ".ci/run" for step in STEPS)


def test_every_cache_is_keyed_by_files_that_git_has():
    keys = [step["with"]["key"] for step in STEPS if "cache@" in step.get("uses", "")]
    assert len(keys) == 2
    for key in keys:
        patterns = re.findall(r"'([^']+)'", key)
        assert patterns
        for pattern in patterns:
            found = subprocess.run(["git", "ls-files", "--", f":(glob){pattern}"], cwd=ROOT, capture_output=True, text=True)
            assert found.stdout, f"{pattern} matches nothing"


def test_it_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in WORKFLOW["jobs"].values())
