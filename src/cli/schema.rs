//! `moderato schema`: the schemas of everything that crosses the worker's border, generated from the code.

use clap::ValueEnum;
use schemars::schema_for;

use crate::calibration::CalibrationV1;
use crate::config;
use crate::dead_letters::DeadLettersV1;
use crate::diff::report::DiffV1;
use crate::eval::report::EvalV1;
use crate::evidence::checkpoint::CheckpointV1;
use crate::evidence::verify::AuditV1;
use crate::explain::ExplainV1;
use crate::export::case::Platform;
use crate::export::settings::Settings;
use crate::export::{self, Format};
use crate::note::NoteV1;
use crate::post::PostV1;
use crate::reconcile::ReconcileV1;
use crate::rejection::DeadLetterHeaders;
use crate::telemetry::metrics;
use crate::verdict::VerdictV1;

/// A schema's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// The input record, `post.v1`.
    Post,
    /// The output record, `verdict.v1`.
    Verdict,
    /// The output record of a drafting pool, `note.v1`.
    Note,
    /// The headers of a dead letter.
    #[value(name = "dead_letter")]
    DeadLetter,
    /// The configuration file.
    Config,
    /// What `eval --fit-calibration` writes and a policy names.
    Calibration,
    /// What `eval --json` prints.
    Eval,
    /// What `reconcile --json` prints.
    Reconcile,
    /// What `audit verify --json` prints.
    Audit,
    /// A record of the topic of checkpoints.
    Checkpoint,
    /// What `diff --json` prints.
    Diff,
    /// What `dead-letters list --json` prints.
    #[value(name = "dead_letters")]
    DeadLetters,
    /// What `explain --json` prints.
    Explain,
    /// A line of `export`.
    Export,
    /// What `export --settings` reads.
    ExportSettings,
    /// What a platform may add to a line that `export` reads.
    ExportPlatform,
    /// The record of `export --format community-notes`.
    ExportCommunityNotes,
    /// The record of `export --format atproto-label`.
    ExportAtprotoLabel,
    /// The record of `export --format activitystreams-flag`.
    ExportActivitystreamsFlag,
    /// The record of `export --format dsa-statement`.
    ExportDsaStatement,
    /// Topics and operations, AsyncAPI 3.1.
    Asyncapi,
    /// Every metric with its meaning: a page, not a schema.
    Metrics,
}

/// The schema's text, as it stands in `schemas/`.
pub fn render(name: SchemaName) -> String {
    let schema = match name {
        SchemaName::Post => schema_for!(PostV1).to_value(),
        SchemaName::Verdict => schema_for!(VerdictV1).to_value(),
        SchemaName::Note => schema_for!(NoteV1).to_value(),
        SchemaName::DeadLetter => schema_for!(DeadLetterHeaders).to_value(),
        SchemaName::Config => config::schema(),
        SchemaName::Calibration => schema_for!(CalibrationV1).to_value(),
        SchemaName::Eval => schema_for!(EvalV1).to_value(),
        SchemaName::Reconcile => schema_for!(ReconcileV1).to_value(),
        SchemaName::Audit => schema_for!(AuditV1).to_value(),
        SchemaName::Checkpoint => schema_for!(CheckpointV1).to_value(),
        SchemaName::Diff => schema_for!(DiffV1).to_value(),
        SchemaName::DeadLetters => schema_for!(DeadLettersV1).to_value(),
        SchemaName::Explain => schema_for!(ExplainV1).to_value(),
        SchemaName::Export => schema_for!(export::Draft).to_value(),
        SchemaName::ExportSettings => schema_for!(Settings).to_value(),
        SchemaName::ExportPlatform => schema_for!(Platform).to_value(),
        SchemaName::ExportCommunityNotes => export::schema(Format::CommunityNotes),
        SchemaName::ExportAtprotoLabel => export::schema(Format::AtprotoLabel),
        SchemaName::ExportActivitystreamsFlag => export::schema(Format::ActivitystreamsFlag),
        SchemaName::ExportDsaStatement => export::schema(Format::DsaStatement),
        SchemaName::Metrics => return metrics::reference().trim_end().to_owned(),
        SchemaName::Asyncapi => return include_str!("../../schemas/asyncapi.yaml").trim_end().to_owned(),
    };
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `moderato schema NAME > schemas/FILE` brings a file up to date.
    #[test]
    fn the_schemas_on_disk_are_what_the_code_says() {
        let files = [
            (SchemaName::Post, "post.v1.json"),
            (SchemaName::Verdict, "verdict.v1.json"),
            (SchemaName::Note, "note.v1.json"),
            (SchemaName::DeadLetter, "dead_letter.v1.json"),
            (SchemaName::Config, "config.v1.json"),
            (SchemaName::Calibration, "calibration.v1.json"),
            (SchemaName::Eval, "eval.v1.json"),
            (SchemaName::Reconcile, "reconcile.v1.json"),
            (SchemaName::Audit, "audit.v1.json"),
            (SchemaName::Checkpoint, "checkpoint.v1.json"),
            (SchemaName::Diff, "diff.v1.json"),
            (SchemaName::DeadLetters, "dead_letters.v1.json"),
            (SchemaName::Explain, "explain.v1.json"),
            (SchemaName::Export, "export/export.v1.json"),
            (SchemaName::ExportSettings, "export/settings.v1.json"),
            (SchemaName::ExportPlatform, "export/platform.v1.json"),
            (SchemaName::ExportCommunityNotes, "export/community-notes.v1.json"),
            (SchemaName::ExportAtprotoLabel, "export/atproto-label.v1.json"),
            (SchemaName::ExportActivitystreamsFlag, "export/activitystreams-flag.v1.json"),
            (SchemaName::ExportDsaStatement, "export/dsa-statement.v1.json"),
        ];
        for (name, file) in files {
            let path = format!("{}/schemas/{file}", env!("CARGO_MANIFEST_DIR"));
            let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                on_disk.trim_end() == render(name),
                "{file} is out of date: moderato schema {name:?} > schemas/{file}"
            );
        }
    }
}
