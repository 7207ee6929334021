//! `moderato diff`: what changes, on verdicts that the real program gave.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::calibration::calibration;
use crate::kafka;
use crate::support::pool::{POLICY, Pool, classify, lines, posts};
use crate::support::records::Outgoing;
use crate::support::repository;
use crate::support::web::rendered;
use crate::support::worker::{Setup, moderato};

/// A folder of verdicts and policies.
pub struct Desk(TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("moderato-diff-").tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// The tests' policy with other words in it.
    pub fn policy(&self, name: &str, changes: &[(&str, &str)]) -> String {
        let policy = fs::read_to_string(repository(POLICY)).unwrap();
        let changed = changes.iter().fold(policy, |policy, (from, to)| {
            assert!(policy.contains(from), "{from} is not in the policy");
            policy.replacen(from, to, 1)
        });
        self.write(name, &changed)
    }

    /// What `moderato classify` makes of these posts, in a file.
    pub fn verdicts(&self, name: &str, setup: Setup, posts: &[Value]) -> String {
        let output = setup.output(jsonl(posts).as_bytes());
        assert_eq!(lines(&output.stdout).len(), posts.len(), "{}", String::from_utf8_lossy(&output.stderr));
        self.write(name, &String::from_utf8(output.stdout).unwrap())
    }
}

pub fn jsonl(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// Different posts in three languages, as their producer says.
pub fn some_posts(count: usize) -> Vec<Value> {
    let text = |n: usize| format!("Claim {n}: the bridge was closed {}.", "and opened again ".repeat(n % 9));
    (0..count).map(|n| json!({"id": format!("p{n}"), "text": text(n), "lang": (["en", "de", "fr"][n % 3])})).collect()
}

/// `moderato diff` with the tests' model and policy as configuration.
pub fn diff(arguments: &[&str]) -> (Value, Option<i32>) {
    told(arguments.iter().fold(classify().verb("diff"), |setup, one| setup.argument(one)))
}

/// The JSON that it prints, which keeps to its schema, and the exit code.
pub fn told(setup: Setup) -> (Value, Option<i32>) {
    let output = setup.argument("--json").output(b"");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let schema = fs::read(repository("schemas/diff.v1.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let faults: Vec<_> = schema.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    (report, output.status.code())
}

pub fn refusal(arguments: &[&str]) -> String {
    let output = arguments.iter().fold(classify().verb("diff"), |setup, one| setup.argument(one)).output(b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    said
}

pub fn misinformation(verdict: &Value) -> f64 {
    verdict["data"]["verdict"]["raw_scores"]["misinformation"].as_f64().unwrap()
}

pub fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one["post_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_moved_threshold_flips_exactly_the_posts_whose_scores_lie_between() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 3);
    pool.post(posts("p", 300));
    let worker = pool.start();
    let verdicts: Vec<Value> = pool.verdicts_of_all().iter().map(|record| record.json()).collect();
    worker.stop();
    let mut scores: Vec<f64> = verdicts.iter().map(misinformation).collect();
    scores.sort_by(f64::total_cmp);
    // From the score of one post on, that one included.
    let (review, act) = (scores[100], scores[200]);
    let desk = Desk::new();
    let candidate = desk.policy(
        "candidate.md",
        &[("review: 0.40, act: 0.95}", &format!("review: {review}, act: {act}}}")), ("{review: 0.60}", "{review: 1}")],
    );
    let csv = desk.path("flips.csv");

    let topic = format!("topic:{}", pool.verdicts);
    let asked = ["--policy", &candidate, "--list", "1000", "--csv", csv.to_str().unwrap()];
    let setup = asked.iter().fold(pool.setup().verb("diff").argument(&topic), |setup, one| setup.argument(one));
    let (report, exit) = told(setup);

    let mut matrix = [[0; 3]; 3];
    let mut flipped = BTreeSet::new();
    for verdict in &verdicts {
        let before =
            ["allow", "review", "act"].iter().position(|name| verdict["data"]["verdict"]["action"] == *name).unwrap();
        let score = misinformation(verdict);
        let after = usize::from(score >= review) + usize::from(score >= act);
        matrix[before][after] += 1;
        if before != after {
            flipped.insert(verdict["subject"].as_str().unwrap().to_owned());
        }
    }
    assert!(flipped.len() > 20, "{matrix:?}");
    assert_eq!((&report["action_matrix"], exit), (&json!(matrix), Some(3)));
    assert_eq!(ids(&report["flips"]["first"]), flipped);
    assert_eq!(report["flips"]["count"], json!(flipped.len()));
    assert_eq!((&report["all"]["labels"], &report["all"]["scores"]), (&json!(0), &json!(0)));
    assert_eq!(report["blast_radius"][0]["acts"][1], json!(100));
    let written = fs::read_to_string(csv).unwrap();
    let in_csv: BTreeSet<String> =
        written.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect();
    assert_eq!(in_csv, flipped);

    let same = pool.setup().verb("diff").argument(&topic).argument("--policy").argument(repository(POLICY));
    let (report, exit) = told(same);
    assert_eq!((&report["same"], &report["all"]["pairs"], exit), (&json!(true), &json!(300), Some(0)));
}

#[test]
fn a_candidate_on_raw_scores_gives_what_it_gives_when_it_really_runs() {
    let desk = Desk::new();
    let mut fit = calibration(2.0, &json!({"unverified": 0.8}));
    fit["per_language"] = json!({"de": {"rows": 40, "temperature": 0.5, "bias": {"misinformation": 1.5}}});
    desk.write("cal.json", &fit.to_string());
    let changes = [
        ("taxonomy:", "calibration: cal.json\nabstain_below: 0.4\nlanguages: [en, de]\ntaxonomy:"),
        ("review: 0.40, act: 0.95}", "review: 0.30, act: 0.55}"),
        ("answer: \" opinion\"", "answer: \" opinion\"\n    thresholds: {review: 0.5}"),
    ];
    let candidate = desk.policy("candidate.md", &changes);
    // Text too short to tell its language, so that the run goes by what the producer says, as the candidate has to.
    let posts: Vec<Value> = (0..200)
        .map(|n| json!({"id": format!("p{n}"), "text": format!("no {n}"), "lang": (["en", "de", "fr"][n % 3])}))
        .collect();
    let a = desk.verdicts("a.jsonl", classify(), &posts);
    let b = desk.verdicts("b.jsonl", classify().set("policy", &candidate), &posts);

    let (run, _) = diff(&[&a, &b, "--list", "200"]);
    let (applied, exit) = diff(&[&a, "--policy", &candidate, "--list", "200"]);
    let (again, same) = diff(&[&b, "--policy", &candidate, "--set", &format!("policy={candidate}")]);

    assert_eq!(exit, Some(3));
    assert!(run["all"]["actions"].as_u64().unwrap() > 20, "{}", run["all"]);
    for part in ["all", "action_matrix", "greatest_score_change"] {
        assert_eq!(run[part], applied[part], "{part}");
    }
    assert!(run["b"]["judges"][0]["calibration"].is_string());
    assert_eq!(run["b"]["judges"], applied["b"]["judges"]);
    let flips = |report: &Value| -> BTreeSet<String> {
        report["flips"]["first"].as_array().unwrap().iter().map(Value::to_string).collect()
    };
    assert_eq!(flips(&run), flips(&applied));
    assert_eq!((&again["same"], same), (&json!(true), Some(0)));
}

#[test]
fn a_candidate_that_the_raw_scores_say_nothing_of_is_refused() {
    let desk = Desk::new();
    let a = desk.verdicts("a.jsonl", classify(), &some_posts(3));
    let change = |name: &str, from: &str, to: &str| desk.policy(name, &[(from, to)]);
    let mut other_model = calibration(2.0, &json!({}));
    other_model["model_digest"] = json!(format!("sha256:{}", "0b".repeat(32)));
    desk.write("other.json", &other_model.to_string());
    for (candidate, reason) in [
        (change("prompt.md", "Judge if", "Say whether"), "its prompt, labels or answers"),
        (change("answer.md", "\" unknown\"", "\" not\""), "its prompt, labels or answers"),
        (change("label.md", "id: unverified", "id: disputed"), "raw scores of exactly its labels"),
        (change("mask.md", "mask: [urls, handles]", "mask: [urls]"), "verdicts do not tell what was masked"),
        (
            change("fit.md", "taxonomy:", "calibration: other.json\ntaxonomy:"),
            "its calibration: it was fitted for the model",
        ),
    ] {
        let said = refusal(&[&a, "--policy", &candidate]);
        assert!(said.contains(reason) && said.contains("a.jsonl, line 1"), "{said}");
    }
    let moved = change("moved.md", "act: 0.95", "act: 0.94");
    let unknown = refusal(&[&a, "--policy", &moved, "--set", &format!("policy={moved}")]);
    assert!(unknown.contains("--set policy=FILE"), "what was masked is known only by the policy in force: {unknown}");
}

#[test]
fn that_nothing_was_masked_is_said_where_it_is_taken_for_granted() {
    let desk = Desk::new();
    let open = desk.policy("open.md", &[("mask: [urls, handles]", "mask: []")]);
    let candidate = desk.policy("candidate.md", &[("mask: [urls, handles]", "mask: []"), ("act: 0.95", "act: 0.94")]);
    let a = desk.verdicts("a.jsonl", classify().set("policy", &open), &some_posts(3));
    let unknown = |report: &Value| report["masks_unknown"].as_u64().unwrap();

    // The policy of the verdicts is not the one of the configuration.
    let (not_at_hand, _) = diff(&[&a, "--policy", &candidate]);
    let text = moderato_text(&[&a, "--policy", &candidate]);
    let (at_hand, _) = diff(&[&a, "--policy", &candidate, "--set", &format!("policy={open}")]);
    let (itself, _) = diff(&[&a, "--policy", &open]);

    assert_eq!([unknown(&not_at_hand), unknown(&at_hand), unknown(&itself)], [3, 0, 0]);
    assert!(text.contains("3 verdicts are by policies that are not at hand"), "{text}");
    assert!(!moderato_text(&[&a, "--policy", &open]).contains("not at hand"));
}

#[test]
fn two_topics_are_joined_by_where_the_posts_stood_within_the_range() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let candidate = Pool { posts: pool.posts.clone(), ..Pool::named(&kafka, "candidate", 2) };
    let desk = Desk::new();
    let policy = desk.policy("policy.md", &[("review: 0.40", "review: 0.05")]);
    let placed = pool.post(posts("p", 80));
    let (one, other) = (pool.start(), candidate.setup().set("policy", &policy).start());
    let after = candidate.verdicts_of_all();
    pool.wait_until_all_is_committed();
    one.stop();
    other.stop();
    // As after a crash: some are published again.
    let again: Vec<_> = after.iter().take(7).filter_map(|record| record.value.clone()).map(Outgoing::new).collect();
    kafka.produce(&candidate.verdicts, again);

    let [a, b] = [&pool, &candidate].map(|pool| format!("topic:{}", pool.verdicts));
    let in_range = placed.iter().filter(|(partition, offset)| *partition == 1 || (5..9).contains(offset)).count();
    let setup = pool.setup().verb("diff").argument(&a).argument(&b);
    let (report, exit) = told(setup.argument("--from").argument("0:5").argument("--to").argument("0:9"));

    assert_eq!(
        (&report["joined_by"], &report["all"]["pairs"], exit),
        (&json!("coordinates"), &json!(in_range), Some(3))
    );
    assert_eq!(report["a"]["outside"], json!(80 - in_range));
    let (report, _) = told(pool.setup().verb("diff").argument(&a).argument(&b));
    assert_eq!((&report["all"]["pairs"], &report["b"]["repeats"]), (&json!(80), &json!(7)));
    let flips = report["all"]["actions"].as_u64().unwrap();
    assert!(flips > 0 && report["action_matrix"][0][1] == json!(flips), "{}", report["action_matrix"]);
}

#[test]
fn labels_tell_which_side_was_right_and_slices_where() {
    let desk = Desk::new();
    let posts = some_posts(120);
    let policy = desk.policy("bias.md", &[("taxonomy:", "calibration: cal.json\ntaxonomy:")]);
    desk.write("cal.json", &calibration(1.0, &json!({"unverified": 50.0})).to_string());
    let a = desk.verdicts("a.jsonl", classify(), &posts);
    let b = desk.verdicts("b.jsonl", classify().set("policy", &policy), &posts);
    let rows: Vec<Value> = posts
        .iter()
        .enumerate()
        .map(|(n, post)| {
            let label = if n % 4 == 0 { "misinformation" } else { "unverified" };
            json!({"id": post["id"], "text": post["text"], "label": label, "desk": (["east", "west"][n % 2])})
        })
        .collect();
    let labels = desk.write("labels.jsonl", &jsonl(&rows[..100]));

    let (report, _) = diff(&[&a, &b, "--labels", &labels, "--slice", "desk", "--resamples", "200"]);

    let right = |file: &str, label: &dyn Fn(&Value) -> Value| -> Vec<bool> {
        let verdicts = lines(&fs::read(file).unwrap());
        verdicts.iter().zip(&rows[..100]).map(|(verdict, row)| label(verdict) == row["label"]).collect()
    };
    let label = |verdict: &Value| verdict["data"]["verdict"]["label"].clone();
    let (before, after) = (right(&a, &label), right(&b, &label));
    let count = |one: bool, other: bool| before.iter().zip(&after).filter(|pair| *pair == (&one, &other)).count();
    let truth = &report["truth"];
    assert_eq!(
        ["both", "only_a", "only_b", "neither"].map(|key| truth[key].as_u64().unwrap() as usize),
        [count(true, true), count(true, false), count(false, true), count(false, false)]
    );
    assert_eq!(truth["accuracy"][1]["value"], json!(0.75));
    let change = &truth["accuracy_change"];
    assert!(change["low"].as_f64() < change["value"].as_f64() && change["value"].as_f64() < change["high"].as_f64());
    let slices: Vec<_> =
        report["slices"].as_array().unwrap().iter().map(|one| (&one["field"], &one["value"], &one["pairs"])).collect();
    let expected = [
        ("language", "de", 40),
        ("language", "en", 40),
        ("language", "fr", 40),
        ("desk", "east", 50),
        ("desk", "west", 50),
        ("desk", "(none)", 20),
    ];
    let expected: Vec<_> = expected.map(|(field, value, pairs)| (json!(field), json!(value), json!(pairs))).into();
    assert_eq!(slices, expected.iter().map(|(field, value, pairs)| (field, value, pairs)).collect::<Vec<_>>());
}

#[test]
fn a_quota_that_a_candidate_would_use_up_is_named() {
    let desk = Desk::new();
    let a = desk.verdicts("a.jsonl", classify(), &some_posts(50));
    let eager = desk.policy(
        "eager.md",
        &[("review: 0.40, act: 0.95}", "review: 0, act: 0}\n    act_quota: {most: 20, window: 1h}")],
    );

    let (report, exit) = diff(&[&a, "--policy", &eager]);
    let text = moderato_text(&[&a, "--policy", &eager, "--max-acts", "misinformation=60/1h"]);

    let radius = &report["blast_radius"][0];
    assert_eq!((&radius["acts"][1], &radius["quota"], &radius["held"]), (&json!(50), &json!(20), &json!(30)));
    assert_eq!((&radius["exceeded"], exit), (&json!(true), Some(3)));
    assert_eq!(report["all"]["acts_gained"], json!(20 - report["action_matrix"][2][2].as_u64().unwrap()));
    assert!(!text.contains("OVER ITS QUOTA"), "{text}");
}

fn moderato_text(arguments: &[&str]) -> String {
    let output = arguments.iter().fold(classify().verb("diff"), |setup, one| setup.argument(one)).output(b"");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_are_compared_without_any_configuration_and_what_is_no_verdict_is_told() {
    let desk = Desk::new();
    let a = desk.verdicts("a.jsonl", classify(), &some_posts(10));
    let whole = fs::read_to_string(&a).unwrap();
    let rejected = json!({"error": {"line": 11, "reason": "empty", "stage": "prepare", "message": "m"}});
    let torn = whole.lines().next().unwrap().split_at(300).0;
    fs::create_dir(desk.path("b")).unwrap();
    for (n, line) in whole.lines().enumerate() {
        desk.write(&format!("b/{n}.jsonl"), line);
    }
    desk.write("b/rest.jsonl", &format!("{rejected}\n{torn}\n"));

    let output = moderato(&["diff", &a, desk.path("b").to_str().unwrap(), "--json"], b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!((&report["same"], output.status.code()), (&json!(true), Some(0)));
    let b = &report["b"];
    assert_eq!((&b["verdicts"], &b["without_verdict"], &b["unread"]["count"]), (&json!(10), &json!(1), &json!(1)));
    assert!(b["unread"]["first"][0].as_str().unwrap().ends_with("rest.jsonl, line 2"));
    let from_stdin = moderato(&["diff", "-", &a], whole.as_bytes());
    assert_eq!(from_stdin.status.code(), Some(0), "{}", String::from_utf8_lossy(&from_stdin.stderr));
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_how_to_mend() {
    let desk = Desk::new();
    let a = desk.verdicts("a.jsonl", classify(), &some_posts(2));
    let empty = desk.write("empty.jsonl", "");
    let policy = repository(POLICY).display().to_string();
    for (arguments, part) in [
        (vec![&*a], "a second place of verdicts, or a candidate"),
        (vec![&a, &a, "--policy", &policy], "not both"),
        (vec![&a, &empty], "there are no verdicts of the range"),
        (vec![&a, &a, "--to", "0:0"], "there are no verdicts of the range"),
        (vec![&a, &a, "--from", "committed"], "cannot be told from verdicts"),
        (vec![&a, &a, "--slice", "desk"], "--labels or --posts"),
        (vec![&a, &a, "--max-acts", "many"], "misinformation=100/1h"),
        (vec![&a, "topic:"], "topic:NAME"),
        (vec![&a, "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (vec![&a, &a, "--csv", "/nowhere/flips.csv"], "a folder that is there"),
    ] {
        let said = refusal(&arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

/// Looks at the report in a frame and tells what it sees in words that no report has.
const HARNESS: &str = "<!doctype html><body><iframe src=\"report.html\" style=\"width:1000px;height:800px\"></iframe><script>
addEventListener('load', () => {
  const page = document.querySelector('iframe').contentDocument, root = page.documentElement;
  const all = selector => [...page.querySelectorAll(selector)];
  const most = Math.max(...all('.flips tbody').map(row => row.getBoundingClientRect().height));
  const cards = new Set(all('.card').map(card => { const box = card.getBoundingClientRect(); return box.left + ':' + box.right; }));
  const out = all('.said, .id').filter(cell => {
    const box = cell.getBoundingClientRect(), card = cell.closest('.card').getBoundingClientRect();
    return box.left < card.left || box.right > card.right;
  });
  document.body.textContent = JSON.stringify({
    wide: root.scrollWidth - root.clientWidth, tallest: Math.round(most), cards: cards.size, out: out.length,
    owned: root.hasAttribute('owned') || 'owned' in page.defaultView, scripts: page.scripts.length, flips: all('.flips tbody').length,
    texts: all('.said').map(cell => cell.textContent),
  });
});
</script>";

#[test]
fn hostile_posts_in_the_page_run_nothing_and_break_no_layout() {
    let desk = Desk::new();
    let own = "document.documentElement.setAttribute('owned',1)";
    let texts = [
        format!("<script>{own}</script>"),
        format!("<img src=x onerror=\"{own}\"><svg onload=\"{own}\">"),
        "</div></td></tr></table></section></main></body></html><h1>The end</h1>".to_owned(),
        format!("</style><style>*{{display:none!important}}</style><iframe srcdoc='<script>{own}</script>'></iframe>"),
        "\u{202e}txet desrever \u{2066}and\u{200b} hidden\u{2069}\u{feff}".to_owned(),
        format!("Z{}algo claims", "\u{300}\u{30d}\u{330}".repeat(200)),
        "no_blank_anywhere_".repeat(300),
        "a line\n".repeat(300),
        "\u{fdfd}\u{12031}".repeat(100),
        "&lt;b&gt; &#x3c;i&#x3e; %3Cscript%3E".to_owned(),
    ];
    let posts: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| json!({"id": if n < 5 { format!("{n} {text}") } else { n.to_string() }, "text": text}))
        .collect();
    let file = desk.write("posts.jsonl", &jsonl(&posts));
    let eager = desk.policy("eager.md", &[("review: 0.40, act: 0.95}", "review: 0, act: 0}")]);
    let a = desk.verdicts("a.jsonl", classify(), &posts);
    let page = desk.path("report.html");
    desk.write("harness.html", HARNESS);

    let (report, _) = diff(&[&a, "--policy", &eager, "--posts", &file, "--html", page.to_str().unwrap()]);
    let Some(seen) = rendered(&format!("file://{}", desk.path("harness.html").display())) else { return };

    let told = seen.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0;
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let flips = report["flips"]["count"].as_u64().unwrap();
    assert!(flips >= 9, "{flips}");
    assert_eq!([&told["owned"], &told["scripts"], &told["out"]], [&json!(false), &json!(0), &json!(0)], "{told}");
    assert_eq!((&told["flips"], &told["cards"], &told["wide"]), (&json!(flips), &json!(1), &json!(0)), "{told}");
    assert!(told["tallest"].as_u64().unwrap() < 330, "{told}");
    let shown = told["texts"].to_string();
    for part in
        ["<h1>The end</h1>", "⟨U+202E⟩txet desrever ⟨U+2066⟩and⟨U+200B⟩", "&lt;b&gt; &#x3c;i&#x3e;", "a line↵a line"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // What the page escapes would have run: the test can fail.
    let raw = format!("<!doctype html><table class=flips><tbody></tbody></table>{}", texts[0]);
    desk.write("report.html", &raw);
    let seen = rendered(&format!("file://{}", desk.path("harness.html").display())).unwrap();
    assert!(seen.contains("\"owned\":true"), "{seen}");
}
