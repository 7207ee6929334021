//! `moderato replay --verify`: do old verdicts hold?

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use super::progress::{Progress, Shown, Way};
use super::{Asked, TURN, input, mend};
use crate::app::{Input, Replay};
use crate::cli::demo_table::plain;
use crate::cli::places::{Entry, Source};
use crate::cli::told;
use crate::diff::Range;
use crate::error::Exit;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::replayed::Replayed;
use crate::reconcile::Place;
use crate::replay::claim::{Claim, Judged};
use crate::replay::posts_kept;
use crate::replay::sample::{Drawn, Sample};
use crate::replay::verify::{Failed, Old, Outcome, Verification};
use crate::verdict::VerdictV1;

/// Posts that are drawn where nothing is said.
const USUAL: usize = 1000;

/// What was read, and what has come of it.
#[derive(Default)]
struct Account {
    posts: usize,
    verdicts: u64,
    repeats: u64,
    unread: u64,
    outcome: Outcome,
    /// Why nothing can be told of a verdict.
    gone: Vec<(Old, String)>,
    finished: bool,
}

impl Asked<'_> {
    pub(super) fn verify(&self, verdicts: Option<&Source>, ids: Option<&HashSet<String>>) -> Result<Exit, Exit> {
        let own = Source::Topic(self.live.output.clone());
        let verdicts = verdicts.unwrap_or(&own);
        let mut account = Account::default();
        let drawn = self.draw(verdicts, ids, &mut account)?;
        account.posts = drawn.posts();
        if account.posts == 0 {
            return Err(mend(&format!(
                "{verdicts}: there are no verdicts of the range; look at the name, --from, --to and --ids"
            )));
        }
        let verification = Verification::new(drawn.all(), self.arguments.tolerance);
        let places = verification.places();
        let records = match &self.arguments.input {
            Some(path) => {
                let wanted = places;
                input::records(path, move |original| {
                    !wanted.contains(&(original.topic.to_string(), original.partition, original.offset.0))
                })
                .map_err(|why| mend(&format!("--input: {why}")))?
            }
            None => input::at(&self.live, places).map_err(|why| mend(&why))?,
        };
        let verification = Arc::new(Mutex::new(verification));
        let look = verification.clone();
        let replay = Replay {
            replayed: Arc::new(Replayed::new(self.id.clone(), None, None)),
            input: Input::Records { records, rate: self.arguments.rate },
            outlet: Some(Outlet::Look(Box::new(move |original, outgoing| {
                look.lock().unwrap_or_else(PoisonError::into_inner).take(original, outgoing);
            }))),
        };

        let all = account.posts as u64;
        let mut progress = Progress::new(self.arguments.progress, &self.id);
        let (_, finished) = self.drive(replay, |tally, ended| {
            while !ended.is_cancelled() {
                let done = tally.finished();
                progress.show(Way { done, left: Some(all.saturating_sub(done)), live_lag: None, held: false });
                thread::sleep(TURN);
            }
            true
        })?;
        progress.end();
        let mut verification = verification.lock().unwrap_or_else(PoisonError::into_inner);
        if finished {
            self.settle_the_rest(&mut verification, &mut account)?;
        }
        account.finished = finished;
        account.outcome = verification.outcome();
        Ok(account.tell(self.arguments.progress == Shown::Json))
    }

    /// Reads the verdicts, and keeps those of the sample.
    fn draw(
        &self,
        verdicts: &Source,
        ids: Option<&HashSet<String>>,
        account: &mut Account,
    ) -> Result<Drawn<Old>, Exit> {
        let arguments = self.arguments;
        let [from, to] = [&arguments.from, &arguments.to].map(|said| said.as_ref().map(|said| said.place.clone()));
        if [&from, &to].contains(&&Some(Place::Committed)) {
            return Err(mend("`committed` cannot be told from verdicts: say beginning, end, a time or offsets"));
        }
        let range = Range { from, to };
        let usual = if ids.is_some() { Sample::Share(1.0) } else { Sample::Posts(USUAL) };
        let mut drawn = Drawn::new(arguments.sample.unwrap_or(usual));
        verdicts.each(Some(&self.live), "verdicts read", |Entry { at, value, .. }| {
            let Some(value) = value else { return Ok(()) };
            let Ok(verdict) = serde_json::from_slice::<VerdictV1<'_>>(value) else {
                account.unread += 1;
                return Ok(());
            };
            let (post, source) = (&*verdict.data.input.post_id, &verdict.data.input.kafka);
            if !range.holds(source) || ids.is_some_and(|ids| !ids.contains(post)) {
                return Ok(());
            }
            account.verdicts += 1;
            if let Some(kept) = drawn.of(post) {
                let place = (source.topic.to_string(), source.partition, source.offset);
                let claim = Claim::of(&verdict);
                if kept.iter().any(|old: &Old| old.place == place && old.claim == claim) {
                    account.repeats += 1;
                } else {
                    kept.push(Old { place, at: at.to_string(), claim });
                }
            }
            Ok(())
        })?;
        Ok(drawn)
    }

    /// Of posts that did not come: why.
    fn settle_the_rest(&self, verification: &mut Verification, account: &mut Account) -> Result<(), Exit> {
        let left = verification.left();
        if left.is_empty() {
            return Ok(());
        }
        if let Some(path) = &self.arguments.input {
            let why = format!("not in {}", path.display());
            account.gone.extend(left.into_iter().map(|old| (old, why.clone())));
            return Ok(());
        }
        let kept = posts_kept(&self.live).map_err(|error| told(&error))?;
        for old in left {
            let (topic, partition, offset) = &old.place;
            let extent = kept.iter().find(|extent| extent.partition == *partition);
            let why = match extent {
                _ if *topic != self.live.posts => format!("of another topic than `{}`", self.live.posts),
                Some(extent) if *offset < extent.low => "deleted by retention".to_owned(),
                Some(extent) if (0..extent.stable).contains(offset) => {
                    "compacted, or of a transaction that was aborted".to_owned()
                }
                _ => {
                    verification.no_such_post(old, "the topic has never had that offset".to_owned());
                    continue;
                }
            };
            account.gone.push((old, why));
        }
        account.gone.sort_by(|(a, _), (b, _)| (&a.place, &a.at).cmp(&(&b.place, &b.at)));
        Ok(())
    }
}

impl Account {
    /// Tells it; the exit code that goes with it.
    fn tell(&self, json: bool) -> Exit {
        if json {
            self.events()
        } else {
            self.print()
        }
        match (self.finished, self.outcome.failed.is_empty()) {
            (false, _) => Exit::Failed,
            (true, false) => Exit::Differs,
            // Nothing was proved.
            (true, true) if self.outcome.held == 0 => Exit::Failed,
            (true, true) => Exit::Ok,
        }
    }

    fn events(&self) {
        let told = |event: &str, old: &Old, more: Value| {
            let (topic, partition, offset) = &old.place;
            let kafka = json!({"topic": topic, "partition": partition, "offset": offset});
            let mut line = json!({"event": event, "post_id": old.claim.post, "kafka": kafka, "verdict_at": old.at});
            if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
                line.extend(more);
            }
            say!("{line}");
        };
        let judged = |judged: &Judged| json!({"label": judged.label, "action": judged.action, "score": judged.score});
        for Failed { old, now, compared, rejected } in &self.outcome.failed {
            let more = json!({
                "why": compared.why, "old": judged(&old.claim.judged), "new": now.as_ref().map(judged), "said": rejected,
                "score_difference": compared.difference, "fingerprint_differs_in": compared.other,
            });
            told("does_not_hold", old, more);
        }
        for (old, why) in &self.gone {
            told("not_verifiable", old, json!({"why": why}));
        }
        let elsewhere = self.outcome.elsewhere.iter();
        let elsewhere: Vec<Value> =
            elsewhere.map(|(parts, verdicts)| json!({"differs_in": parts, "verdicts": verdicts})).collect();
        say!(
            "{}",
            json!({
                "event": "ended", "finished": self.finished, "verdicts": self.verdicts, "posts": self.posts,
                "hold": self.outcome.held, "do_not_hold": self.outcome.failed.len(), "not_verifiable": self.gone.len(),
                "repeats": self.repeats, "unread": self.unread, "other_fingerprints": elsewhere,
            })
        );
    }

    fn print(&self) {
        let Outcome { held, failed, elsewhere } = &self.outcome;
        if !failed.is_empty() {
            say!("{}\n", listed(failed));
        }
        let verified = held + failed.len() as u64;
        let how = if self.finished { "" } else { "NOT finished: " };
        say!("{how}{verified} verdicts on {} posts judged again, of {} in the range", self.posts, self.verdicts);
        say!("{held} hold, {} do not", failed.len());
        for (parts, verdicts) in elsewhere {
            say!("{verdicts} compared within the tolerance: the fingerprint differs in {}", parts.join(", "));
        }
        let mut gone = BTreeMap::<&str, u64>::new();
        self.gone.iter().for_each(|(_, why)| *gone.entry(why).or_default() += 1);
        for (why, verdicts) in gone {
            say!("{verdicts} cannot be verified, the post is {why}");
        }
        if self.repeats > 0 {
            say!("{} are repeats of the same verdict", self.repeats);
        }
        if self.unread > 0 {
            say!("{} records are no verdicts and were passed over", self.unread);
        }
        if verified == 0 {
            say!("nothing could be verified");
        }
    }
}

fn listed(failed: &[Failed]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["post", "at", "verdict at", "then", "now", "does not hold"]);
    for Failed { old, now, compared, rejected } in failed {
        let (topic, partition, offset) = &old.place;
        let judged = |judged: &Judged| format!("{} {} {:.4}", judged.action.name(), plain(&judged.label), judged.score);
        let said = || rejected.as_deref().unwrap_or_default().to_owned();
        let mut why = compared.why.join(", ");
        if let Some(difference) = compared.difference.filter(|_| compared.why.contains(&"score")) {
            why += &format!(" (by {difference:.2e})");
        }
        if let Some(other) = &compared.other {
            why += &format!("; other {}", other.join(", "));
        }
        table.add_row([
            plain(&old.claim.post),
            format!("{}/{partition}/{offset}", plain(topic)),
            plain(&old.at),
            judged(&old.claim.judged),
            now.as_ref().map_or_else(said, judged),
            why,
        ]);
    }
    table
}
