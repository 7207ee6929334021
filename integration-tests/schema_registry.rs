//! A schema registry beside Kafka: Confluent's wire format in and out, against Apicurio Registry.

use moderato::event::{self, SchemaId, unframed};
use serde_json::{Value, json};

use crate::support::notes::{NotesPool, flagged_posts};
use crate::support::pool::{Pool, post, posts};
use crate::support::records::{Outgoing, Record};
use crate::support::registry;
use crate::support::web::{admin, metric};
use crate::support::worker::{Setup, moderato};
use crate::support::{PATIENCE, eventually, free_port};
use crate::{kafka, test_name};

const POST: &str = r#"{"type":"object","title":"post","properties":{"id":{"type":"string"},"text":{"type":"string"}}}"#;
const AVRO: &str = r#"{"type":"record","name":"Post","fields":[{"name":"id","type":"string"}]}"#;

/// The shared registry, or the end of a test that may be skipped.
macro_rules! registry {
    () => {
        match registry::shared(test_name!()) {
            Some(registry) => registry,
            None => return,
        }
    };
}

/// A post behind a schema's id.
fn framed(id: u32, post: Outgoing) -> Outgoing {
    let value = [&[0][..], &id.to_be_bytes(), post.value.as_deref().unwrap()].concat();
    Outgoing { value: Some(value), ..post }
}

fn with_registry(setup: Setup, url: &str) -> Setup {
    setup.set("kafka.schema_registry.url", url)
}

/// The value of a record, which stands behind this id and fits that id's schema.
fn assert_fits(record: &Record, id: u32, schema: &Value) {
    let (found, value) = unframed(record.value.as_deref().unwrap());
    assert_eq!(found, Some(SchemaId(id)));
    let value: Value = serde_json::from_slice(value).unwrap();
    let schema = jsonschema::validator_for(schema).unwrap();
    let faults: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
    assert_eq!(faults, Vec::<String>::new(), "{value:#}");
}

/// The whole event of a record.
fn whole(record: &Record) -> Value {
    let json = event::json(record.value.as_deref().unwrap(), |name| record.header(name)).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn subjects(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| whole(record)["subject"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn verdicts_stand_behind_the_id_of_a_schema_that_the_registry_holds_and_that_they_fit_in_both_modes() {
    let (kafka, registry) = (kafka!(), registry!());
    for (mode, root) in [("structured", "verdict.v1"), ("binary", "VerdictData")] {
        let pool = Pool::named(&kafka, &format!("{mode}-"), 1);
        pool.post(posts("p", 8));
        let setup = || with_registry(pool.setup(), &registry.url).set("kafka.cloudevents", mode);
        let worker = setup().start();
        let verdicts = pool.verdicts_of_all();
        worker.stop();

        let (id, schema) = registry.latest(&format!("{}-value", pool.verdicts)).expect("a schema was registered");
        assert_eq!(schema["title"], root);
        assert_eq!(verdicts.len(), 8);
        verdicts.iter().for_each(|verdict| assert_fits(verdict, id, &schema));
        assert_eq!(subjects(&verdicts), (0..8).map(|n| format!("p-{n}")).collect::<Vec<_>>());

        // The same schema has the same id, whoever registers it.
        pool.post(posts("q", 1));
        let _next = setup().start();
        assert_fits(pool.verdicts_of_all().last().unwrap(), id, &schema);
        let output = setup().verb("reconcile").argument("--json").output(b"");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &report["verdicts"]), (Some(0), &json!(9)), "{report:#}");
        let output = setup().verb("explain").argument("--json").argument("p-3").output(b"");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["events"][1]["kind"], "verdict", "{report:#}");
    }
}

#[test]
fn notes_of_flagged_posts_behind_a_schema_are_drafted_and_have_a_schema_of_their_own() {
    let (kafka, registry) = (kafka!(), registry!());
    let notes = NotesPool::new(&kafka, 1);
    let id = registry.register(&format!("{}-value", notes.pool.posts), "JSON", POST);
    notes.pool.post(flagged_posts("p", 3).map(|post| framed(id, post)));
    let _worker = with_registry(notes.setup(), &registry.url).start();

    let published = notes.notes_of_all();

    let (id, schema) = registry.latest(&format!("{}-value", notes.pool.verdicts)).expect("a schema was registered");
    assert_eq!((published.len(), &schema["title"]), (3, &json!("note.v1")));
    published.iter().for_each(|note| assert_fits(note, id, &schema));
}

#[test]
fn a_post_behind_an_id_that_is_unknown_or_not_of_json_is_a_dead_letter_that_says_so() {
    let (kafka, registry) = (kafka!(), registry!());
    let pool = Pool::new(&kafka, 1);
    let known = registry.register(&format!("{}-value", pool.posts), "JSON", POST);
    let avro = registry.register(&format!("{}-avro-value", pool.posts), "AVRO", AVRO);
    let missing = 4_000_000_000;
    pool.post([
        framed(known, post("known", "A claim.")),
        framed(avro, post("avro", "A claim.")),
        framed(missing, post("missing", "A claim.")),
        framed(missing, post("missing", "Another claim.")),
        framed(known, post("again", "A claim.")),
        post("bare", "A claim."),
    ]);
    let mut worker = with_registry(pool.setup(), &registry.url).start();
    let address = admin(&mut worker);

    assert_eq!(subjects(&pool.verdicts_of_all()), ["known", "again", "bare"]);
    let letters = kafka.read(&pool.dead_letters, 3, PATIENCE);
    let told: Vec<_> = letters.iter().map(|letter| letter.header("moderato.error.message").unwrap()).collect();
    let absent = format!("schema {missing} is not in the registry");
    assert_eq!(told, [&format!("schema {avro} is Avro; posts are JSON"), &absent, &absent]);
    assert!(letters.iter().all(|letter| letter.header("moderato.error.reason") == Some("unknown_schema")));
    assert_eq!(letters[0].value, framed(avro, post("avro", "A claim.")).value, "the post as it came");
    let asked = |result: &str| metric(&address, "moderato_schema_lookups_total", &[&format!("result=\"{result}\"")]);
    // Each id once, however often it comes.
    assert_eq!((asked("json"), asked("other"), asked("missing")), (1.0, 1.0, 1.0));
}

#[test]
fn a_registry_that_is_gone_holds_nobody_up_and_is_asked_again_when_it_is_back() {
    let kafka = kafka!();
    let Some(mut registry) = registry::private(test_name!()) else { return };
    let pool = Pool::new(&kafka, 1);
    let subject = format!("{}-value", pool.posts);
    let known = registry.register(&subject, "JSON", POST);
    pool.post([framed(known, post("before", "A claim."))]);
    let mut worker = with_registry(pool.setup(), &registry.url).start();
    let address = admin(&mut worker);
    pool.wait_until_all_is_committed();

    registry.kill();
    let unknown = known + 70;
    pool.post([framed(known, post("known", "A claim.")), framed(unknown, post("unchecked", "A claim."))]);
    pool.wait_until_all_is_committed();
    let log = worker.wait_for_log("the schema registry does not tell");
    assert!(log.contains(&registry.url) && log.contains("judged unchecked"), "{log}");
    let asked = |result: &str| metric(&address, "moderato_schema_lookups_total", &[&format!("result=\"{result}\"")]);
    assert_eq!((asked("json"), asked("unchecked")), (1.0, 1.0));

    registry.start_again();
    let mut sent = 0;
    let rejected = || {
        sent += 1;
        pool.post([framed(unknown, post(&format!("later-{sent}"), "A claim."))]);
        pool.wait_until_all_is_committed();
        pool.count(&pool.dead_letters)
    };
    eventually("it is asked again", PATIENCE, rejected, |count| *count > 0);
    let letter = &kafka.read_all(&pool.dead_letters)[0];
    assert_eq!(letter.header("moderato.error.reason"), Some("unknown_schema"));
    assert_eq!(subjects(&pool.verdicts_of_all())[..3], ["before", "known", "unchecked"]);
}

#[test]
fn without_auto_register_the_schema_has_to_be_there_and_the_program_prints_it() {
    let (kafka, registry) = (kafka!(), registry!());
    for (mode, name) in [("structured", "verdict"), ("binary", "verdict-data")] {
        let pool = Pool::named(&kafka, &format!("{mode}-"), 1);
        let subject = format!("{}-value", pool.verdicts);
        let setup = || {
            let setup = with_registry(pool.setup(), &registry.url).set("kafka.schema_registry.auto_register", false);
            setup.set("kafka.cloudevents", mode)
        };
        let mut worker = setup().start();
        assert_eq!(worker.wait(), 2);
        let (code, told) = worker.last_word();
        let mend = format!("moderato schema {name}");
        assert!(code == "config" && told.contains(&subject) && told.contains(&mend), "{code}: {told}");
        assert_eq!(registry.latest(&subject), None);

        let printed = moderato(&["schema", name], b"").stdout;
        let id = registry.register(&subject, "JSON", &String::from_utf8(printed).unwrap());
        pool.post(posts("p", 1));
        let _worker = setup().start();
        assert_eq!(unframed(pool.verdicts_of_all()[0].value.as_deref().unwrap()).0, Some(SchemaId(id)));
    }
}

#[test]
fn a_registry_that_is_not_there_at_the_start_ends_it_with_the_key_to_mend() {
    let kafka = kafka!();
    let pool = Pool::new(&kafka, 1);
    let url = format!("http://127.0.0.1:{}", free_port());
    let mut worker = with_registry(pool.setup(), &url).start();
    assert_eq!(worker.wait(), 1);
    let (code, told) = worker.last_word();
    assert!(code == "schema_registry", "{code}: {told}");
    assert!(told.contains(&url) && told.contains("kafka.schema_registry.url"), "{told}");
    let checked = with_registry(pool.setup(), &url).verb("check").output(b"");
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(said.contains("FAIL  schema registry: ") && said.contains("kafka.schema_registry.url"), "{said}");
}
