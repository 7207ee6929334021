//! `docs/audit.md`, walked on a broker of its own: what the page tells to type is typed, in order, and prints what it shows.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::broker::Own;
use crate::support::child::{Guarded, watched};
use crate::support::worker::clean_environment;
use crate::support::{PATIENCE, eventually, model, provided, repository};
use crate::test_name;

const PROGRAM: &str = env!("CARGO_BIN_EXE_moderato");
/// The broker of the page.
const BROKER: &str = "127.0.0.1:9092";
/// Of the sample posts, so many are judged here, and those that the page names.
const POSTS: usize = 40;

/// A command of the page, the exit code that it tells (`# exit code 3`), and what it shows of what is printed.
#[derive(Debug)]
struct Step {
    command: String,
    exit: i32,
    shown: Vec<String>,
}

/// The blocks of the page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    page.split(&begin).skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block).collect()
}

/// As a terminal shows them: `$ ` before a command, `> ` before what continues it.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks(page, "console").into_iter().flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            let exit = command.split_once("# exit code ").map_or(0, |(_, code)| code.parse().unwrap());
            steps.push(Step { command: command.to_owned(), exit, shown: Vec::new() });
        } else {
            let step = steps.last_mut().unwrap();
            match line.strip_prefix("> ") {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// The words of a line; those with a digit in them may differ from run to run.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word }).collect()
}

/// A folder that looks like the repository after what the page tells to make beforehand.
struct Desk {
    folder: TempDir,
    brokers: String,
}

impl Desk {
    fn new(brokers: &str, page: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("moderato-audit-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for made in ["walk", "src", ".cache/models"] {
            fs::create_dir_all(at(made)).unwrap();
        }
        for name in ["model", "examples", "schemas"] {
            symlink(repository(name), at(name)).unwrap();
        }
        let python = provided("MODERATO_TEST_PYTHON", ".venv/bin/python");
        symlink(python.ancestors().nth(2).unwrap(), at(".venv")).unwrap();
        symlink(model("misinformation"), at(".cache/models/misinformation")).unwrap();
        let samples = fs::read_to_string(repository("src/samples.jsonl")).unwrap();
        let named: BTreeSet<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        let chosen = samples.lines().enumerate().filter(|(n, line)| *n < POSTS || named.contains(&*id(line)));
        fs::write(at("src/samples.jsonl"), chosen.map(|(_, line)| format!("{line}\n")).collect::<String>()).unwrap();
        Self { folder, brokers: brokers.to_owned() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// As at a shell in this folder, with the program at hand.
    fn prepare(&self, command: &mut Command) {
        clean_environment(command);
        let path = std::env::var("PATH").unwrap();
        let here = Path::new(PROGRAM).parent().unwrap().display();
        command.current_dir(self.path()).env("PATH", format!("{here}:{path}"));
        command.env("MODERATO__ADMIN__LISTEN", "127.0.0.1:0");
    }

    fn type_in(&self, line: &str) -> Output {
        let mut shell = Command::new("bash");
        shell.args(["-c", &line.replace(BROKER, &self.brokers)]);
        self.prepare(&mut shell);
        shell.output().unwrap()
    }

    /// The command beside which the page goes on: stopped once all posts are judged.
    fn judge_all(&self, own: &Own) {
        let mut command = watched(Path::new(PROGRAM), self.path(), &self.path().join("walk/run.log"));
        command.args(["run", "-c", "walk/moderato.yaml"]);
        self.prepare(&mut command);
        let mut worker = Guarded::start(command);
        let ends = own.kafka.end_offsets("posts");
        let look = || (own.kafka.committed("moderato", "posts"), worker.ended());
        let (_, ended) =
            eventually("all is judged", 5 * PATIENCE, look, |(committed, ended)| *committed == ends || ended.is_some());
        assert!(ended.is_none(), "{}", fs::read_to_string(self.path().join("walk/run.log")).unwrap());
        worker.signal("TERM");
        assert_eq!(worker.exit_code(PATIENCE), Some(0));
    }

    fn take(&self, step: &Step) {
        let output = self.type_in(&step.command);
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(step.exit), "{}\n{printed}", step.command);
        let lines: Vec<_> = printed.lines().map(words).collect();
        for shown in &step.shown {
            let (begin, whole) = shown.strip_suffix('…').map_or((shown.as_str(), true), |begin| (begin, false));
            let begin = words(begin);
            let found = lines.iter().any(|line| if whole { *line == begin } else { line.starts_with(&begin) });
            assert!(found, "{} does not print `{shown}` but\n{printed}", step.command);
        }
    }
}

#[test]
fn the_audit_of_the_documentation_goes_from_a_complaint_to_the_archive_and_to_what_was_forged() {
    let Some(own) = Own::start(test_name!(), "") else { return };
    let page = fs::read_to_string(repository("docs/audit.md")).unwrap();
    let steps = steps(&page);
    for verb in ["reconcile", "explain", "audit verify", "replay", "diff", "archive", "archive verify", "archive erase"]
    {
        let typed = format!("moderato {verb} ");
        assert!(steps.iter().any(|step| step.command.contains(&typed)), "the page leaves out {verb}");
    }
    let desk = Desk::new(&own.kafka.brokers, &page);
    let config = blocks(&page, "yaml")[0].replace(BROKER, &own.kafka.brokers);
    fs::write(desk.path().join("walk/moderato.yaml"), config).unwrap();

    for step in steps {
        if step.command.contains(" reconcile ") {
            desk.judge_all(&own);
        }
        desk.take(&step);
    }

    assert!(fs::read_to_string(desk.path().join("walk/diff.html")).unwrap().contains("</html>"));
}
