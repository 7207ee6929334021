//! Each form filled in, withheld, and refused where it would break the published rules.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::case::{NoteText, Platform, specimen};
use super::*;

const SETTINGS: &str = r#"
topic: health
community_notes: {trustworthy: [example.org]}
atproto: {labeler: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", expires_days: 180}
activitystreams: {actor: "https://social.example/services/moderato", flag: "https://social.example/flags/{id}"}
dsa:
  statement:
    decision_visibility: [DECISION_VISIBILITY_CONTENT_LABELLED]
    decision_ground: DECISION_GROUND_INCOMPATIBLE_CONTENT
    decision_ground_reference_url: https://social.example/rules
    incompatible_content_ground: Rule 7, false claims
    incompatible_content_explanation: Rule 7 has false claims labelled.
    incompatible_content_illegal: "No"
    territorial_scope: [DE, FR]
"#;

const ALL: [Format; 4] =
    [Format::CommunityNotes, Format::AtprotoLabel, Format::ActivitystreamsFlag, Format::DsaStatement];

fn settings() -> Settings {
    Settings::parse(SETTINGS).unwrap()
}

fn exporter(format: Format) -> Exporter {
    Exporter::new(format, settings()).unwrap()
}

fn record(format: Format, case: &Case) -> Result<Value, Withheld> {
    static EXPORTERS: LazyLock<[Exporter; 4]> = LazyLock::new(|| ALL.map(exporter));
    EXPORTERS[ALL.iter().position(|one| *one == format).unwrap()].record(case)
}

fn code(format: Format, change: impl FnOnce(&mut Case)) -> &'static str {
    let mut case = specimen("health");
    change(&mut case);
    record(format, &case).map_or_else(|withheld| withheld.code(), |_| "written")
}

#[test]
fn each_form_is_filled_in_from_verdict_note_and_settings() {
    let case = specimen("health");
    assert_eq!(
        record(Format::CommunityNotes, &case).unwrap(),
        json!({
            "classification": "misinformed_or_potentially_misleading", "misleading_tags": ["factual_error"],
            "trustworthy_sources": true, "text": "The post says X. Y states Z. https://example.org/e1",
        })
    );
    assert_eq!(
        record(Format::AtprotoLabel, &case).unwrap(),
        json!({
            "ver": 1, "src": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "val": "misinformation",
            "uri": "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lb2xk5ymck2f",
            "cts": "2026-11-22T08:00:00.000Z", "exp": "2027-05-21T08:00:00.000Z",
        })
    );
    assert_eq!(
        record(Format::ActivitystreamsFlag, &case).unwrap(),
        json!({
            "@context": "https://www.w3.org/ns/activitystreams", "type": "Flag",
            "id": "https://social.example/flags/0123456789abcdef0123456789abcdef",
            "actor": "https://social.example/services/moderato",
            "object": ["at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lb2xk5ymck2f"],
            "content": "Automated pre-screen: possible misinformation (health), score 0.97. For a moderator to confirm or \
                        reject. Draft note: The post says X. Y states Z.",
            "published": "2026-11-22T08:00:00Z",
        })
    );
    assert_eq!(
        record(Format::DsaStatement, &case).unwrap(),
        json!({
            "decision_visibility": ["DECISION_VISIBILITY_CONTENT_LABELLED"],
            "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
            "decision_ground_reference_url": "https://social.example/rules",
            "incompatible_content_ground": "Rule 7, false claims",
            "incompatible_content_explanation": "Rule 7 has false claims labelled.",
            "incompatible_content_illegal": "No", "content_type": ["CONTENT_TYPE_TEXT"],
            "category": "STATEMENT_CATEGORY_RISK_FOR_PUBLIC_SECURITY",
            "category_specification": ["KEYWORD_RISK_PUBLIC_HEALTH", "KEYWORD_MISINFORMATION_DISINFORMATION"],
            "territorial_scope": ["DE", "FR"], "content_language": "EN", "content_date": "2026-11-22",
            "application_date": "2026-11-22", "source_type": "SOURCE_VOLUNTARY", "automated_detection": "Yes",
            "automated_decision": "AUTOMATED_DECISION_PARTIALLY",
            "decision_facts": "The content was found by an automated classifier run on the provider's own initiative; a \
                               moderator, on the classifier's proposal, decided that the post states as fact a claim that \
                               is false or materially misleading.",
            "puid": "moderato-0123456789abcdef0123456789abcdef",
        })
    );
}

#[test]
fn a_draft_says_that_it_is_one_and_what_it_was_made_from() {
    let case = specimen("health");
    let draft = serde_json::to_value(exporter(Format::AtprotoLabel).export(&case).unwrap()).unwrap();
    let told = ["schema", "format", "status", "verdict_id", "post_id"].map(|key| draft[key].as_str().unwrap());
    assert_eq!(told, ["export.v1", "atproto-label", "draft", "0123456789abcdef0123456789abcdef", "specimen"]);
    assert!(shape::breaches_of(&schema_for!(Draft).to_value(), &draft).is_empty());
}

#[test]
fn each_thing_that_is_missing_withholds_the_form_that_needs_it() {
    let note = Format::CommunityNotes;
    assert_eq!(code(note, |case| case.note = None), "needs_note");
    assert_eq!(code(note, |case| case.note.as_mut().unwrap().fixed_form = true), "fixed_form");
    assert_eq!(code(note, |case| case.platform.evidence.clear()), "no_url");
    assert_eq!(code(note, |case| case.note.as_mut().unwrap().summary = "a".repeat(280)), "too_long");
    assert_eq!(code(note, |case| case.note.as_mut().unwrap().summary = "a".repeat(279)), "written");
    for format in [Format::AtprotoLabel, Format::ActivitystreamsFlag] {
        assert_eq!(code(format, |case| case.platform.uri = None), "no_uri");
    }
    for format in [Format::AtprotoLabel, Format::DsaStatement] {
        assert_eq!(code(format, |case| case.abstained = None), "needs_verdict");
    }
    assert_eq!(code(Format::DsaStatement, |case| case.platform.topic = Some("weather".into())), "unknown_topic");
    assert_eq!(code(Format::DsaStatement, |case| case.made = None), "no_date");
    let mut nobody = settings();
    nobody.topic = None;
    let mut case = specimen("health");
    case.platform.topic = None;
    assert_eq!(dsa_statement::record(&case, &nobody).unwrap_err(), Withheld::NoTopic);
}

#[test]
fn a_note_loses_its_marks_and_a_url_that_it_has_is_not_repeated() {
    let mut case = specimen("health");
    let note = case.note.as_mut().unwrap();
    note.summary = "Y states Z [e1] (https://example.org/e1).\nSo it is.".into();
    let exported = record(Format::CommunityNotes, &case).unwrap();
    assert_eq!(exported["text"], "Y states Z (https://example.org/e1). So it is.");
    case.platform.evidence[0].url = "https://example.org.evil.test/".into();
    let exported = record(Format::CommunityNotes, &case).unwrap();
    assert_eq!(exported["trustworthy_sources"], false, "{exported}");
}

#[test]
fn a_label_has_the_word_for_its_meaning_and_is_taken_back_by_the_same_one() {
    let val = |change: fn(&mut Case)| {
        let mut case = specimen("health");
        change(&mut case);
        let label = record(Format::AtprotoLabel, &case).unwrap();
        (label["val"].as_str().unwrap().to_owned(), label["neg"].as_bool().unwrap_or(false))
    };
    assert_eq!(val(|case| case.label = "unverified".into()), ("rumor".into(), false));
    assert_eq!(val(|case| case.platform.reasons = vec![Reason::MissingImportantContext]), ("misleading".into(), false));
    assert_eq!(val(|case| case.platform.reversed = true), ("misinformation".into(), true));
}

#[test]
fn a_decision_is_fully_automated_only_where_the_platform_lets_the_policy_act_alone() {
    let decided = |alone: bool, action: Action| {
        let mut settings = settings();
        settings.dsa.acts_alone = alone;
        let case = Case { action: Some(action), ..specimen("health") };
        let statement = Exporter::new(Format::DsaStatement, settings).unwrap().record(&case).unwrap();
        (statement["automated_decision"] == "AUTOMATED_DECISION_FULLY")
            == statement["decision_facts"].as_str().unwrap().contains("without a person")
            && statement["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    };
    assert!(decided(true, Action::Act));
    assert!(!decided(true, Action::Review) && !decided(false, Action::Act));
}

#[test]
fn settings_that_could_never_give_a_record_are_refused_at_the_start() {
    let told = |format, text: &str| Exporter::new(format, Settings::parse(text).unwrap()).err().unwrap().to_string();
    assert!(told(Format::AtprotoLabel, "topic: health").contains("atproto.labeler is missing"));
    assert!(told(Format::AtprotoLabel, "atproto: {labeler: moderato}").contains("src:"));
    assert!(told(Format::ActivitystreamsFlag, "topic: health").contains("activitystreams.actor is missing"));
    let dsa = told(Format::DsaStatement, "topic: health");
    assert!(dsa.contains("decision_ground") && dsa.contains("anyOf"), "{dsa}");
    assert!(Exporter::new(Format::CommunityNotes, Settings::default()).is_ok());
}

#[test]
fn every_problem_of_a_settings_file_is_told_at_once() {
    let error = Settings::parse("colour: red\natproto: {labeler: 7}\nlabels: {misinformation: lies}").unwrap_err();
    let text = error.to_string();
    for part in ["colour", "atproto.labeler", "labels.misinformation"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(Settings::parse("a: [").unwrap_err().to_string().contains("is not valid YAML"));
}

/// A change of the fields that are the same in every statement.
type Change = Box<dyn Fn(&mut Map<String, Value>)>;

/// What the Transparency Database would refuse, or ought to.
#[test]
fn a_statement_that_breaks_a_published_rule_is_never_written() {
    let refused = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut settings = settings();
        change(&mut settings.dsa.statement);
        match Exporter::new(Format::DsaStatement, settings) {
            Ok(_) => "written".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let set = |key: &'static str, value: Value| {
        move |statement: &mut Map<String, Value>| {
            statement.insert(key.to_owned(), value.clone());
        }
    };
    let gone = |key: &'static str| move |statement: &mut Map<String, Value>| drop(statement.remove(key));
    let cases: [(&str, Change); 17] = [
        ("decision_visibility", Box::new(set("decision_visibility", json!(["DECISION_VISIBILITY_WHISPERED"])))),
        ("anyOf", Box::new(gone("decision_visibility"))),
        (
            "decision_visibility_other: is required",
            Box::new(set("decision_visibility", json!(["DECISION_VISIBILITY_OTHER"]))),
        ),
        ("decision_ground", Box::new(gone("decision_ground"))),
        ("incompatible_content_ground: is required", Box::new(gone("incompatible_content_ground"))),
        (
            "illegal_content_legal_ground: is allowed only",
            Box::new(set("illegal_content_legal_ground", json!("Law 1"))),
        ),
        (
            "incompatible_content_explanation",
            Box::new(set("incompatible_content_explanation", json!("x".repeat(2001)))),
        ),
        ("incompatible_content_ground", Box::new(set("incompatible_content_ground", json!("x".repeat(501))))),
        ("decision_facts", Box::new(set("decision_facts", json!("x".repeat(5001))))),
        ("decision_facts: holds what may be a handle", Box::new(set("decision_facts", json!("By @someone.")))),
        ("decision_ground_reference_url", Box::new(set("decision_ground_reference_url", json!("rules.html")))),
        ("content_type", Box::new(set("content_type", json!(["CONTENT_TYPE_SMELL"])))),
        ("content_type_other: is required", Box::new(set("content_type", json!(["CONTENT_TYPE_OTHER"])))),
        ("territorial_scope", Box::new(set("territorial_scope", json!(["US"])))),
        ("source_identity: is for others", Box::new(set("source_identity", json!("Somebody")))),
        ("decision_monetary_other: is required", Box::new(set("decision_monetary", json!("DECISION_MONETARY_OTHER")))),
        ("post_text", Box::new(set("post_text", json!("What the post said.")))),
    ];
    for (part, change) in &cases {
        let told = refused(change);
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let late = Case { time: "2039-01-01T00:00:00Z".parse().unwrap(), ..specimen("health") };
    let told = record(Format::DsaStatement, &late).unwrap_err().to_string();
    assert!(told.contains("application_date: must be a date from 2020-01-01"), "{told}");
    assert_eq!(code(Format::DsaStatement, |case| case.verdict_id = Some("a b".into())), "broken_rules");
}

#[test]
fn a_label_or_flag_that_breaks_a_published_rule_is_never_written() {
    for (format, uri) in [(Format::AtprotoLabel, "not a uri"), (Format::ActivitystreamsFlag, "spaces in it")] {
        assert_eq!(code(format, |case| case.platform.uri = Some(uri.to_owned())), "broken_rules");
    }
    let cid = Some("bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae".to_owned());
    assert_eq!(code(Format::AtprotoLabel, |case| case.platform.cid = cid.clone()), "written");
    assert_eq!(code(Format::AtprotoLabel, |case| case.platform.cid = Some("?".into())), "broken_rules");
    let elsewhere = |case: &mut Case| {
        case.platform = Platform { uri: Some("https://a.example/1".into()), cid, ..case.platform.clone() };
    };
    assert_eq!(code(Format::AtprotoLabel, elsewhere), "broken_rules");
}

#[test]
fn a_line_is_a_verdict_or_a_note_and_what_is_wrong_with_one_is_told_without_its_text() {
    let note = json!({
        "type": "dev.moderato.note.v1", "subject": "p1", "time": "2026-11-22T08:00:00Z",
        "data": {
            "note": {"status": "draft", "summary": "S", "citations": ["e1"], "fixed_form": false},
            "verdict": {"verdict_id": "v1", "label": "misinformation", "score": 0.9, "action": "review"},
            "input": {"lang": "en"},
        },
        "platform": {"topic": "health", "created_at": "2026-11-20T08:00:00Z"},
    });
    let case = Case::parse(&note.to_string()).unwrap();
    assert_eq!(
        (case.verdict_id.as_deref(), case.abstained, case.platform.topic.as_deref()),
        (Some("v1"), None, Some("health"))
    );
    assert_eq!(case.made.unwrap().to_string(), "2026-11-20T08:00:00Z");
    for (secret, part) in [
        ("{\"secret", "is not JSON"),
        (r#"{"type": "secret"}"#, "is neither"),
        (r#"{"type": "dev.moderato.verdict.v1", "subject": ["secret"]}"#, "shape of verdict.v1"),
        (r#"{"type": "dev.moderato.note.v1", "platform": {"secret": 1}}"#, "`platform` has a field"),
    ] {
        let told = Case::parse(secret).unwrap_err();
        assert!(told.contains(part) && !told.contains("secret"), "{told}");
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let label =
        prop::sample::select(vec!["misinformation", "unverified", "opinion_or_satire", "not_misinformation", "x"]);
    let action = prop::sample::select(vec![None, Some(Action::Allow), Some(Action::Review), Some(Action::Act)]);
    let reason = prop::sample::select(vec![Reason::FactualError, Reason::MisinterpretedSatire, Reason::Other]);
    let reasons = prop::collection::vec(reason, 0..3);
    let summary = "[a-z .\\[\\]]{0,200}( https://[a-z.]{3,20}/[a-z]{0,200}){0,2}";
    (label, action, prop::option::of(any::<bool>()), any::<bool>(), reasons, summary, any::<bool>()).prop_map(
        |(label, action, abstained, unsupported_language, reasons, summary, noted)| {
            let mut case = specimen("health");
            case.platform.reasons = reasons;
            case.note = noted.then(|| NoteText { summary, citations: vec!["e1".into()], fixed_form: false });
            Case { label: label.to_owned(), action, abstained, unsupported_language, ..case }
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_said_of_a_post_that_is_no_misinformation_or_satire_or_that_nobody_is_sure_of(case in any_case()) {
        for format in ALL {
            if record(format, &case).is_ok() {
                prop_assert!(["misinformation", "unverified"].contains(&case.label.as_str()));
                prop_assert!(case.abstained != Some(true) && !case.unsupported_language);
                prop_assert!(case.action != Some(Action::Allow));
                prop_assert!(!case.platform.reasons.contains(&Reason::MisinterpretedSatire));
            }
        }
    }

    #[test]
    fn a_statement_holds_nothing_of_the_post_or_its_note_and_a_note_keeps_its_length(case in any_case()) {
        let case = Case { post_id: "the-id-of-the-post".into(), ..case };
        if let Ok(statement) = record(Format::DsaStatement, &case) {
            let text = statement.to_string();
            prop_assert!(!text.contains("the-id-of-the-post") && !text.contains("at://"), "{}", text);
            let note = case.note.as_ref().map(|note| note.summary.trim()).filter(|note| note.len() > 20);
            prop_assert!(note.is_none_or(|note| !text.contains(note)));
        }
        if let Ok(note) = record(Format::CommunityNotes, &case) {
            let words = note["text"].as_str().unwrap().split(' ').filter(|word| !word.starts_with("https://"));
            prop_assert!(words.map(|word| word.len() + 1).sum::<usize>() <= 281);
            prop_assert!(note["text"].as_str().unwrap().contains("https://"));
        }
    }
}
