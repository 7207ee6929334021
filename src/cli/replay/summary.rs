//! What a replay came to.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::error::Exit;
use crate::kafka::bounds::Gap;
use crate::pipeline::replayed::{Compared, Sheet};
use crate::pipeline::tally::{Tally, read};

/// Of this process: others that shared the replay tell their own.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    event: &'static str,
    id: &'a str,
    finished: bool,
    resumed: bool,
    verdicts: u64,
    dead_letters: u64,
    tombstones: u64,
    cached: u64,
    twins: u64,
    #[serde(flatten)]
    sheet: Sheet,
    /// Offsets of the range that were left when this process began; others may have finished some of them.
    left_at_start: Option<u64>,
    /// Offsets of the range that had no record: deleted, compacted, or the marks of transactions.
    offsets_without_record: u64,
    /// Of them, what retention had deleted.
    deleted_by_retention: Vec<Deleted>,
}

#[derive(Serialize)]
struct Deleted {
    partition: i32,
    from: i64,
    to: i64,
}

/// What a range came to besides its posts.
pub(super) struct Ended {
    /// All of it is done, by whomever.
    pub finished: bool,
    /// Another process had begun it.
    pub resumed: bool,
    /// Offsets that were left when this process began.
    pub left: Option<u64>,
    /// Offsets without a record.
    pub gaps: u64,
    /// Of them, those that retention took.
    pub retention: Vec<Gap>,
}

impl<'a> Summary<'a> {
    pub(super) fn new(id: &'a str, ended: Ended, sheet: Sheet, tally: &Tally) -> Self {
        let Ended { finished, resumed, left, gaps, retention } = ended;
        let deleted = retention.into_iter().map(|Gap { partition, from, to }| Deleted { partition, from, to });
        Self {
            event: "ended",
            id,
            finished,
            resumed,
            verdicts: read(&tally.verdicts),
            dead_letters: read(&tally.dead_letters),
            tombstones: read(&tally.tombstones),
            cached: read(&tally.cached),
            twins: read(&tally.twins),
            sheet,
            left_at_start: left,
            offsets_without_record: gaps,
            deleted_by_retention: deleted.collect(),
        }
    }

    /// Tells it; the exit code that goes with it.
    pub(super) fn tell(&self, json: bool) -> Exit {
        if json {
            match serde_json::to_string(self) {
                Ok(line) => say!("{line}"),
                Err(_) => return Exit::Failed,
            }
        } else {
            self.print();
        }
        let differs = self.sheet.compared.is_some_and(|compared| compared.differ());
        match (self.finished, differs) {
            (false, _) => Exit::Failed,
            (true, true) => Exit::Differs,
            (true, false) => Exit::Ok,
        }
    }

    fn print(&self) {
        let how = match (self.finished, self.resumed) {
            (true, false) => "done".to_owned(),
            (true, true) => "done; this process went on with it".to_owned(),
            (false, _) => format!("NOT done: `moderato replay --id {}` goes on with it", self.id),
        };
        say!("replay {}: {how}", self.id);
        if let Some(all) = self.left_at_start.filter(|all| self.finished && self.own() < *all) {
            say!(
                "what follows is of this process: {} of the {all} that were left; the rest was done by others, or before",
                self.own()
            );
        }
        say!("");
        if !self.sheet.verdicts_by_label.is_empty() {
            say!("{}\n", self.labels());
        }
        say!("{}", self.counts());
        for Deleted { partition, from, to } in &self.deleted_by_retention {
            say!("partition {partition}: {from} to {to} was deleted by retention and cannot be judged again");
        }
        if let Some(compared) = &self.sheet.compared {
            say!("\ncompared with the live verdicts\n{}", comparison(compared));
        }
    }

    /// Offsets that this process finished, or found to have no record.
    fn own(&self) -> u64 {
        let Self { verdicts, dead_letters, tombstones, offsets_without_record, .. } = self;
        verdicts + dead_letters + tombstones + self.sheet.passed_over + offsets_without_record
    }

    fn labels(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header(["label", "allow", "review", "act"]);
        for (label, actions) in &self.sheet.verdicts_by_label {
            let count = |action| actions.get(action).copied().unwrap_or_default().to_string();
            table.add_row([label.clone(), count("allow"), count("review"), count("act")]);
        }
        table
    }

    fn counts(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        let always = [("verdicts", self.verdicts), ("dead letters", self.dead_letters)];
        let if_any = [
            ("tombstones", self.tombstones),
            ("answered by the cache", self.cached),
            ("answered by a twin", self.twins),
            ("passed over", self.sheet.passed_over),
            ("offsets without a record", self.offsets_without_record),
        ];
        for (what, count) in always.into_iter().chain(if_any.into_iter().filter(|(_, count)| *count > 0)) {
            table.add_row([what.to_owned(), count.to_string()]);
        }
        table
    }
}

fn comparison(compared: &Compared) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let Compared { action_differs, label_differs, score_differs, same, not_found } = *compared;
    let rows = [
        ("the same", same),
        ("another action", action_differs),
        ("another label", label_differs),
        ("other scores only", score_differs),
        ("no live verdict", not_found),
    ];
    for (what, count) in rows {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    table
}
