//! Policies as people write them, and as they get them wrong.

use super::*;

const GOOD: &str = r#"
id: misinformation
revision: 2026-11-21            # a date stays text
taxonomy: moderato-misinfo/1
prompt: |
  You check posts.

  Answer with one word.
labels:
  - id: misinformation
    description: asserts a claim that is false
    answer: " false"
    thresholds: {review: 0.40, act: 0.95}
  - id: not_misinformation
    description: everything else
    answer: " true"
"#;

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, PolicyFormat::Yaml)
}

/// The problems of a policy as `field: message` lines.
fn problems(text: &str) -> Vec<String> {
    let error = parse(text).unwrap_err();
    error.problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

fn assert_one(text: &str, start: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(start), "{found:?}");
}

#[test]
fn a_policy_is_read_as_written() {
    let policy = parse(GOOD).unwrap();
    assert_eq!((policy.id.as_str(), policy.revision.as_str()), ("misinformation", "2026-11-21"));
    assert_eq!(policy.prompt, "You check posts.\n\nAnswer with one word.");
    assert_eq!(policy.labels[0].answer, " false");
    assert_eq!(policy.labels[1].thresholds, None);
}

#[test]
fn scores_lead_to_actions_at_the_thresholds() {
    let policy = parse(GOOD).unwrap();
    let action = |score| policy.action(0, score);
    assert_eq!([action(0.0), action(0.399), action(0.4)], [Action::Allow, Action::Allow, Action::Review]);
    assert_eq!([action(0.9499), action(0.95), action(1.0)], [Action::Review, Action::Act, Action::Act]);
    assert_eq!(action(f64::NAN), Action::Review);
    assert_eq!(policy.action(1, 1.0), Action::Allow);
    assert_eq!(serde_json::to_string(&Action::Review).unwrap(), r#""review""#);
}

#[test]
fn a_label_without_an_act_threshold_never_acts() {
    let policy = parse(&GOOD.replace(", act: 0.95", "")).unwrap();
    assert_eq!([policy.action(0, 0.39), policy.action(0, 1.0)], [Action::Allow, Action::Review]);
}

#[test]
fn markdown_with_front_matter_is_the_same_policy() {
    let (head, labels) = GOOD.split_once("prompt: |\n").unwrap();
    let labels = labels.split_once("labels:").unwrap().1;
    let text = format!("---{head}labels:{labels}---\n\nYou check posts.\n\nAnswer with one word.\n");
    let markdown = Policy::parse(&text, PolicyFormat::Markdown).unwrap();
    assert_eq!(markdown, parse(GOOD).unwrap());
    assert_eq!(Policy::parse(&text.replace('\n', "\r\n"), PolicyFormat::Markdown).unwrap(), markdown);
    assert!(Policy::parse("no front matter", PolicyFormat::Markdown).is_err());
}

#[test]
fn the_digest_follows_the_content_and_not_the_layout() {
    let policy = parse(GOOD).unwrap();
    assert!(policy.digest().starts_with("sha256:") && policy.digest().len() == 71);
    let commented = GOOD.replace("revision:", "# a remark\nrevision:");
    assert_eq!(parse(&commented).unwrap().digest(), policy.digest());
    for (from, to) in [("0.40", "0.41"), ("one word", "two words"), ("\" true\"", "\" yes\""), ("else", "other")] {
        assert_ne!(parse(&GOOD.replace(from, to)).unwrap().digest(), policy.digest(), "{from}");
    }
}

#[test]
fn each_mistake_is_named_with_its_field() {
    assert_one(&GOOD.replace("act: 0.95", "act: 1.5"), "labels[0].thresholds.act: is 1.5; write a number from 0 to 1");
    assert_one(&GOOD.replace("act: 0.95", "actt: 0.95, act: 1"), "labels[0].thresholds.actt: is not a known key");
    assert_one(&GOOD.replace("act: 0.95", "act: .nan"), "file: is not valid YAML");
    assert_one(&GOOD.replace("review: 0.40", "review: 0.99"), "labels[0].thresholds: review is 0.99 and act is 0.95");
    assert_one(&GOOD.replace("review: 0.40, ", ""), "labels[0].thresholds.review: is missing");
    assert_one(&GOOD.replace("id: not_mis", "id: mis"), "labels: the id \"misinformation\" is used twice");
    assert_one(&GOOD.replace("\" true\"", "\" false\""), "labels: the answer \" false\" is used twice");
    assert_one(&GOOD.replace("\" true\"", "true"), "labels[1].answer: must be the text");
    assert_one(&GOOD.replace("taxonomy:", "colour: red\ntaxonomy:"), "colour: is not a known key");
    assert_one(&GOOD.replace("id: misinformation\nrev", "id: Mis information\nrev"), "id: is \"Mis information\"");
    assert_one("- a list", "file: must be a map");
    assert_one("id: [", "file: is not valid YAML");
}

#[test]
fn an_empty_prompt_and_too_few_or_too_many_labels_are_refused() {
    let (head, _) = GOOD.split_once("prompt:").unwrap();
    let (_, labels) = GOOD.split_once("labels:").unwrap();
    assert_one(&format!("{head}prompt: '  '\nlabels:{labels}"), "prompt: is missing or empty");
    assert_one(GOOD.split_once("  - id: not_mis").unwrap().0, "labels: has 1 entries");
    let many: String = (0..17).map(|n| format!("\n  - {{id: l{n}, description: d, answer: a{n}}}")).collect();
    assert_one(&format!("{}labels:{many}", GOOD.split_once("labels:").unwrap().0), "labels: has 17 entries");
}

#[test]
fn all_problems_are_reported_at_once() {
    let text =
        GOOD.replace("id: misinformation\nrev", "rev").replace("review: 0.40", "review: -1").replace("\" true\"", "''");
    let found = problems(&text);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_mask_is_part_of_the_digest_and_what_cannot_be_masked_is_told() {
    let with =
        |mask: &str| Policy::parse(&GOOD.replace("taxonomy:", &format!("mask: {mask}\ntaxonomy:")), PolicyFormat::Yaml);
    let plain = Policy::parse(GOOD, PolicyFormat::Yaml).unwrap();
    let both = with("[urls, handles]").unwrap();
    assert_ne!(both.digest(), plain.digest());
    assert_eq!(both.digest(), with("[handles, urls, urls]").unwrap().digest());
    assert_eq!(with("[]").unwrap().digest(), plain.digest());
    assert!(with("[names]").unwrap_err().to_string().contains("urls and handles"));
    assert!(with("urls").unwrap_err().to_string().contains("must be a list"));
}

#[test]
fn a_file_is_named_in_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.yaml");
    std::fs::write(&path, GOOD.replace("0.95", "95")).unwrap();
    let message = Policy::load(&path).unwrap_err().to_string();
    assert!(message.contains("broken.yaml") && message.contains("labels[0].thresholds.act"), "{message}");
    assert!(Policy::load(&dir.path().join("absent.yml")).unwrap_err().to_string().contains("cannot be read"));
    assert!(Policy::load(&dir.path().join("policy.txt")).unwrap_err().to_string().contains("must end in"));
}

/// A calibration for the labels of `GOOD` beside a policy that names it, both in a folder.
fn with_calibration(change: impl Fn(String) -> String, policy: &str) -> Result<Policy, PolicyError> {
    let folder = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "0a".repeat(32));
    let calibration = json!({
        "schema": "calibration.v1", "id": "cal-1", "policy": "misinformation", "taxonomy": "moderato-misinfo/1",
        "model": "m", "model_digest": digest, "prompt_digest": digest,
        "labels": ["misinformation", "not_misinformation"], "method": "temperature",
        "overall": {"rows": 90, "temperature": 2.0},
        "fitted_on": {"rows": 90, "sha256": "0a".repeat(32), "nll_before": 1.0, "nll_after": 0.5,
                      "ece_before": 0.2, "ece_after": 0.01, "fitted_at": "2026-11-22T08:00:00Z"},
    });
    fs::write(folder.path().join("cal.json"), change(calibration.to_string())).unwrap();
    fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    Policy::load(&folder.path().join("policy.yaml"))
}

fn told(outcome: Result<Policy, PolicyError>) -> Vec<String> {
    outcome.unwrap_err().problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

#[test]
fn a_calibration_lies_beside_its_policy_and_is_part_of_its_digest() {
    let naming = GOOD.replace("labels:", "calibration: cal.json\nlabels:");
    let policy = with_calibration(|text| text, &naming).unwrap();
    let warmer = with_calibration(|text| text.replace("2.0", "2.5"), &naming).unwrap();
    assert_eq!(policy.calibration.as_ref().unwrap().id, "cal-1");
    assert_ne!(policy.digest(), parse(GOOD).unwrap().digest());
    assert_ne!(policy.digest(), warmer.digest());
    let laid_out = with_calibration(|text| text.replace(',', " ,\n"), &naming).unwrap();
    assert_eq!(policy.digest(), laid_out.digest());
}

#[test]
fn a_calibration_for_other_labels_or_one_that_cannot_be_read_is_refused_with_every_reason() {
    let naming = GOOD.replace("labels:", "calibration: cal.json\nlabels:");
    let swapped = |text: String| text.replace(r#""not_misinformation"]"#, r#""satire"]"#).replace("info/1", "info/2");
    let found = told(with_calibration(swapped, &naming));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("misinformation, satire; the policy has misinformation, not_misinformation"),
        "{found:?}"
    );
    assert!(found[1].contains("moderato-misinfo/2"), "{found:?}");
    let broken = |text: String| text.replace("2.0", "0").replace("cal-1", "");
    assert_eq!(told(with_calibration(broken, &naming)).len(), 2);
    let found = told(with_calibration(|text| text, &naming.replace("cal.json", "gone.json")));
    assert!(found.len() == 1 && found[0].contains("gone.json: file: cannot be read"), "{found:?}");
}

#[test]
fn what_a_policy_does_not_say_leaves_its_digest_as_it_was() {
    assert_eq!(
        parse(GOOD).unwrap().digest(),
        "sha256:4baa4438e0e84ba52cf67e88c64af76567e4859f88376e26bc1446a8bf812594"
    );
    for line in ["abstain_below: 0.5", "languages: [en]", "calibration_for_other_model: allow"] {
        let said = parse(&format!("{GOOD}{line}\n")).unwrap();
        assert_ne!(said.digest(), parse(GOOD).unwrap().digest(), "{line}");
    }
}

#[test]
fn a_verdict_abstains_below_the_threshold_and_never_acts_then() {
    let policy = parse(&format!("{GOOD}abstain_below: 0.5\n")).unwrap();
    assert_eq!([policy.abstains(0.49), policy.abstains(0.5), policy.abstains(f64::NAN)], [true, false, true]);
    assert!(!parse(GOOD).unwrap().abstains(0.0));
    let found = problems(&format!("{GOOD}abstain_below: 0.96\n"));
    assert_eq!(found, ["abstain_below: is 0.96 and label misinformation acts from 0.95; act must not be below it"]);
    assert_one(&format!("{GOOD}abstain_below: 2\n"), "abstain_below: is 2; write a number from 0 to 1");
}

#[test]
fn languages_are_primary_tags_and_no_language_is_no_reason_against_a_post() {
    let policy = parse(&format!("{GOOD}languages: [no, en, en]\n")).unwrap();
    assert_eq!(policy.languages, ["en", "no"]);
    let judged = [Some("en"), Some("de"), None].map(|language| policy.can_judge(language));
    assert_eq!(judged, [true, false, true]);
    assert!(parse(GOOD).unwrap().can_judge(Some("de")));
    let found = problems(&format!("{GOOD}languages: [en-GB, english, 7]\n"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], "languages[0]: is \"en-GB\"; the primary tag is en");
    assert_one(&format!("{GOOD}languages: en\n"), "languages: must be a list of language tags");
    assert_one(&format!("{GOOD}calibration_for_other_model: yes\n"), "calibration_for_other_model: must be allow");
}

#[test]
fn each_label_has_the_band_of_its_own_thresholds() {
    let policy = parse(GOOD).unwrap();
    assert_eq!(policy.bands(&[0.96, 0.04]), [Action::Act, Action::Allow]);
    assert_eq!(policy.bands(&[0.41, 0.59]), [Action::Review, Action::Allow]);
}
