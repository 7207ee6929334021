//! `moderato diff --judge`: two policies in one run, each with its own prompt, each prompt run once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::diff::{Desk, diff, ids, jsonl, misinformation, refusal, some_posts, told};
use crate::kafka;
use crate::support::pool::{POLICY, Pool, classify, lines, posts};
use crate::support::records::Outgoing;
use crate::support::repository;
use crate::support::worker::Setup;

const STRICT: [&str; 2] = ["--set", "determinism=strict"];

/// Another prompt, and thresholds that make a flip of nearly every post.
fn other_prompt(desk: &Desk) -> String {
    desk.policy(
        "candidate.md",
        &[("Judge if", "Say in one word whether"), ("review: 0.40, act: 0.95}", "review: 0, act: 0.0001}")],
    )
}

/// A report without what differs from run to run, or tells where verdicts were read.
fn compared(mut report: Value) -> Value {
    for key in ["compared_at", "judged", "candidate"] {
        report.as_object_mut().unwrap().remove(key);
    }
    for side in ["a", "b"] {
        report[side].as_object_mut().unwrap().remove("name");
    }
    let flips = json!(sorted(&report["flips"]["first"]));
    report["flips"]["first"] = flips;
    // In the candidate's order, or in the alphabet's.
    for key in ["labels", "by_label", "blast_radius"] {
        let list = report[key].as_array_mut().unwrap();
        list.iter_mut().filter_map(Value::as_object_mut).for_each(|one| drop(one.remove("peak_from")));
        list.sort_by_key(|one| one["label"].as_str().or(one.as_str()).unwrap().to_owned());
    }
    report.as_object_mut().unwrap().remove("label_matrix");
    report
}

/// Flips as they stand, in the order of their posts; topics and files have names of their own.
fn sorted(flips: &Value) -> Vec<Value> {
    let mut flips = flips.as_array().unwrap().clone();
    flips.iter_mut().for_each(|flip| drop(flip.as_object_mut().unwrap().remove("topic")));
    flips.sort_by_key(|flip| flip["post_id"].to_string());
    flips
}

/// Tokens that the model sees of these posts under a policy, the prompt's end included.
fn tokens(policy: &str, posts: &[Value]) -> usize {
    let output = classify().verb("tokens").set("policy", policy).output(jsonl(posts).as_bytes());
    // The first line is about the prompt itself.
    lines(&output.stdout).iter().skip(1).map(|line| line["ids"].as_array().unwrap().len()).sum()
}

#[test]
fn each_of_two_policies_scores_to_the_last_bit_as_it_does_alone_and_runs_its_prompt_once() {
    let desk = Desk::new();
    let candidate = other_prompt(&desk);
    let posts = some_posts(150);
    let file = desk.write("posts.jsonl", &jsonl(&posts));
    let strict = || classify().set("determinism", "strict");
    let a = desk.verdicts("a.jsonl", strict(), &posts);
    let b = desk.verdicts("b.jsonl", strict().set("policy", &candidate), &posts);

    let (alone, _) = diff(&[&a, &b, "--list", "1000"]);
    let judged = ["--judge", &file, "--policy", &candidate, "--list", "1000"];
    let (together, exit) = diff(&[&judged[..], &STRICT].concat());

    assert_eq!(exit, Some(3));
    assert!(together["flips"]["count"].as_u64().unwrap() > 140, "{}", together["all"]);
    assert!(together["greatest_score_change"].as_f64().unwrap() > 0.0);
    // Every flip tells both sides' scores as they were given, and the greatest change of any score.
    assert_eq!(compared(together.clone()), compared(alone));

    let cost = &together["judged"];
    assert_eq!((&cost["weights_shared"], &together["candidate"]), (&json!(true), &json!(true)));
    let prompts = [&a, &b].map(|file| {
        let verdict = lines(&std::fs::read(file).unwrap()).remove(0);
        verdict["data"]["input"]["tokens_prompt"].as_u64().unwrap()
    });
    let policy = repository(POLICY).display().to_string();
    for (side, policy, prompt) in [("a", &policy, prompts[0]), ("b", &candidate, prompts[1])] {
        let spent = &cost[side];
        assert_eq!((&spent["rows"], &spent["twins"]), (&json!(150), &json!(0)));
        assert_eq!(spent["row_tokens"], json!(tokens(policy, &posts)), "{side}");
        assert_eq!((&spent["prompt_tokens"], &spent["prompt_tokens_run"]), (&json!(prompt), &json!(prompt)), "{side}");
        assert_eq!(spent["prompt_tokens_shared"], json!(150 * prompt), "{side}");
    }
    assert_ne!(prompts[0], prompts[1]);
}

#[test]
fn a_candidate_may_be_the_same_policy_in_another_precision_or_model() {
    let desk = Desk::new();
    let file = desk.write("posts.jsonl", &jsonl(&some_posts(20)));

    let (int8, _) = diff(&["--judge", &file, "--candidate-set", "model.precision=int8"]);

    assert_eq!(int8["a"]["judges"][0]["precision"], "fp32");
    assert!(int8["b"]["judges"][0]["precision"].as_str().unwrap().starts_with("int8"));
    assert_eq!(int8["judged"]["weights_shared"], json!(false));
    assert!(int8["b"]["name"].as_str().unwrap().ends_with("misinformation-short.md, model.precision=int8"));
}

#[test]
fn a_range_of_a_topic_is_judged_by_two_exactly_and_the_live_group_and_topics_stay_as_they_are() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 2);
    let number = |n: usize| i32::try_from(n % 2).unwrap();
    pool.post(posts("p", 120).enumerate().map(|(n, post)| post.partition(number(n))));
    pool.post([Outgoing::new("no json").key("k").partition(0), Outgoing::tombstone().key("p-0").partition(1)]);
    let strict = |setup: Setup| setup.set("determinism", "strict");
    let worker = strict(pool.setup()).start();
    let verdicts: Vec<Value> =
        pool.verdicts_of_all().iter().filter(|record| record.value.is_some()).map(|record| record.json()).collect();
    worker.stop();
    let topics = [&pool.posts, &pool.verdicts, &pool.dead_letters];
    let before = (pool.committed(), topics.map(|topic| kafka.end_offsets(topic)));
    // Partition 0 from 10 on with the broken post, partition 1 up to 30.
    let within = |verdict: &&Value| {
        let at = &verdict["data"]["input"]["kafka"];
        let offset = at["offset"].as_i64().unwrap();
        if at["partition"] == 0 { offset >= 10 } else { offset < 30 }
    };
    let range: Vec<&Value> = verdicts.iter().filter(within).collect();
    let mut scores: Vec<f64> = range.iter().map(|verdict| misinformation(verdict)).collect();
    scores.sort_by(f64::total_cmp);
    let (review, act) = (scores[25], scores[50]);
    let desk = Desk::new();
    let candidate = desk.policy(
        "candidate.md",
        &[("review: 0.40, act: 0.95}", &format!("review: {review}, act: {act}}}")), ("{review: 0.60}", "{review: 1}")],
    );

    let place = format!("topic:{}", pool.posts);
    let asked = ["--judge", &place, "--policy", &candidate, "--from", "0:10", "--to", "1:30", "--list", "1000"];
    let setup = asked.iter().fold(strict(pool.setup().verb("diff")), |setup, one| setup.argument(one));
    let (report, exit) = told(setup);

    let mut matrix = [[0; 3]; 3];
    let mut flipped = BTreeSet::new();
    for verdict in &range {
        let action = &verdict["data"]["verdict"]["action"];
        let from = ["allow", "review", "act"].iter().position(|name| action == *name).unwrap();
        let score = misinformation(verdict);
        let to = usize::from(score >= review) + usize::from(score >= act);
        matrix[from][to] += 1;
        if from != to {
            flipped.insert(verdict["subject"].as_str().unwrap().to_owned());
        }
    }
    assert!(flipped.len() > 10, "{matrix:?}");
    assert_eq!((&report["all"]["pairs"], exit), (&json!(80), Some(3)));
    assert_eq!(report["action_matrix"], json!(matrix));
    assert_eq!(ids(&report["flips"]["first"]), flipped);
    assert_eq!((&report["all"]["scores"], &report["joined_by"]), (&json!(0), &json!("coordinates")));
    assert_eq!((&report["a"]["without_verdict"], &report["b"]["without_verdict"]), (&json!(1), &json!(1)));
    assert_eq!((pool.committed(), topics.map(|topic| kafka.end_offsets(topic))), before);
    // What was judged here is what stands on the live topic.
    let live = format!("topic:{}", pool.verdicts);
    let (on_scores, _) = told(
        ["--policy", &candidate, "--from", "0:10", "--to", "1:30", "--list", "1000"]
            .iter()
            .fold(pool.setup().verb("diff").argument(&live), |setup, one| setup.argument(one)),
    );
    for part in ["all", "action_matrix", "label_matrix", "by_label", "slices", "blast_radius"] {
        assert_eq!(report[part], on_scores[part], "{part}");
    }
    assert_eq!(sorted(&report["flips"]["first"]), sorted(&on_scores["flips"]["first"]));
}

#[test]
fn both_sides_are_held_to_their_own_quotas() {
    let desk = Desk::new();
    let file = desk.write("posts.jsonl", &jsonl(&some_posts(50)));
    let eager = |most: u32| {
        let act = format!("review: 0, act: 0}}\n    act_quota: {{most: {most}, window: 24h}}");
        desk.policy(&format!("eager-{most}.md"), &[("review: 0.40, act: 0.95}", &act)])
    };
    let live = format!("policy={}", eager(20));

    let (report, exit) = diff(&["--judge", &file, "--set", &live, "--policy", &eager(35)]);

    assert_eq!(report["action_matrix"], json!([[0, 0, 0], [0, 15, 15], [0, 0, 20]]));
    let radius = &report["blast_radius"][0];
    assert_eq!((&radius["acts"], &radius["quota"], &radius["held"]), (&json!([50, 50]), &json!(35), &json!(15)));
    assert_eq!((&report["all"]["acts_gained"], exit), (&json!(15), Some(3)));
}

#[test]
fn the_cost_is_told_in_words() {
    let desk = Desk::new();
    let file = desk.write("posts.jsonl", &jsonl(&some_posts(9)));
    let page = desk.path("report.html");
    let asked = ["--judge", &file, "--policy", &other_prompt(&desk), "--html", page.to_str().unwrap()];
    let output = asked.iter().fold(classify().verb("diff"), |setup, one| setup.argument(one)).output(b"");
    let text = String::from_utf8(output.stdout).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    for told in ["was read once and judged by both in this run, over one copy of the weights", "after: 9 posts run"] {
        assert!(text.contains(told) && page.contains(told), "{text}");
    }
    assert!(page.contains("What another policy would change"));
}

#[test]
fn a_run_of_two_that_makes_no_sense_is_told_how_to_mend() {
    let desk = Desk::new();
    let file = desk.write("posts.jsonl", &jsonl(&some_posts(3)));
    let empty = desk.write("empty.jsonl", "");
    let policy = repository(POLICY).display().to_string();
    for (arguments, part) in [
        (vec!["--judge", &*file], "name a candidate with --policy"),
        (vec!["--judge", &file, &file, "--policy", &policy], "cannot be used with"),
        (vec![&*file, &file, "--candidate-set", "model.precision=int8"], "--candidate-set: it is for posts"),
        (vec!["--judge", &file, "--policy", "nowhere.md"], "nowhere.md"),
        (vec!["--judge", &file, "--candidate-set", "model.colour=red"], "of the candidate"),
        (vec!["--judge", "nowhere.jsonl", "--policy", &policy], "--judge: nowhere.jsonl: cannot be read"),
        (vec!["--judge", &empty, "--policy", &policy], "there are no verdicts of the range"),
        (vec!["--judge", &file, "--policy", &policy, "--to", "0:0"], "there are no verdicts of the range"),
        (vec!["--judge", "-", "--posts", "-", "--policy", &policy], "standard input can be read only once"),
        (vec!["--judge", "topic:posts", "--policy", &policy], "kafka"),
    ] {
        let said = refusal(&arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
