"""What is generated is up to date, and what is packed is what was tested."""

import subprocess
import sys
import tomllib

import pytest
import yaml
from charts import CHART, HELM, ROOT, SETUPS, run

sys.path.insert(0, str(ROOT / "helm" / "tools"))
import readme  # noqa: E402


@pytest.mark.parametrize("tool", ["dashboard.py", "readme.py"])
def test_what_is_generated_is_up_to_date(tool):
    done = subprocess.run([sys.executable, ROOT / "helm" / "tools" / tool, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_value_is_in_the_readme():
    text = (CHART / "values.yaml").read_text()
    rows = readme.values(text)

    def missing(value, path):
        if any(path[:length] in rows for length in range(1, len(path) + 1)):
            return []
        return [found for key in value for found in missing(value[key], (*path, key))] if isinstance(value, dict) else [path]

    assert missing(yaml.safe_load(text), ()) == []
    assert len(rows) > 100


def test_a_value_without_a_meaning_is_found():
    with pytest.raises(SystemExit, match="a.b has no comment"):
        readme.values("a:\n  # -- Here.\n  c: 1\n  b: 2\n")


def test_the_packed_chart_renders_what_the_folder_does(tmp_path):
    done = run(HELM, "package", CHART, "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("moderato-*.tgz")
    values = ["-f", SETUPS["everything-on"], "--api-versions", "keda.sh/v1alpha1"]
    packed, folder = (run(HELM, "template", "rel", chart, *values).stdout for chart in (archive, CHART))
    assert packed == folder
    assert "rel-moderato-dashboard" in packed


def test_the_chart_runs_the_worker_of_its_own_commit():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_there_is_a_setup_for_every_profile():
    assert {"cpu", "cuda", "tensorrt", "classify-and-draft", "external-secrets", "everything-on", "minimal"} <= set(SETUPS)
