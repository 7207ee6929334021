//! `moderato replay`: judge a range again.

pub(super) mod input;
mod progress;
mod summary;
mod verify;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::progress::{Progress, Shown, Way};
use self::summary::{Ended, Summary};
use super::places::Source;
use super::{Common, VerbSettings, report, runtime, told};
use crate::app::{self, Input, Replay};
use crate::config::{Config, Delivery, EvidenceSettings, KafkaSettings, Needs, Task};
use crate::error::Exit;
use crate::kafka::bounds::{Bounds, Watch};
use crate::pipeline::filed::{Filed, Of, Written};
use crate::pipeline::outlet::Outlet;
use crate::pipeline::replayed::{Live, Replayed};
use crate::pipeline::tally::Tally;
use crate::receipt::Original;
use crate::replay::sample::Sample;
use crate::replay::{self, Plan, Request, Said, Seen, Watcher};

/// Between two looks at how far it has come.
const TURN: Duration = Duration::from_millis(100);

/// Judges posts again, on the same road, to an audit topic or a file that nothing live reads.
///
/// The range is fixed when the replay begins. Progress is kept by a consumer group of its own: begun again with the same
/// --id, it goes on with exactly what is left, and several processes with the same --id share the partitions. A place is
/// `beginning`, `end`, `committed` (by the live group), a time (2026-11-22T10:00:00Z, or 24h: that long ago; the first record of that time or later),
/// or offsets (0:1500,1:1400: of these partitions; the others as if nothing were said).
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, nothing differs; 1 not done (the same --id goes on); 2 mend the command line or the configuration; 3 done, and verdicts differ (--compare) or do not hold (--verify)."
)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    common: Common,
    /// Where the range begins: with the first record that is kept, if nothing is said.
    #[arg(long, value_name = "PLACE")]
    from: Option<Said>,
    /// Where the range ends: behind the last record that is there, if nothing is said.
    #[arg(long, value_name = "PLACE")]
    to: Option<Said>,
    /// Posts from a file of `post.v1` JSON lines or Parquet, a folder of these, or `-` for standard input; and not from Kafka.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "yield_to_lag", "compare"])]
    input: Option<PathBuf>,
    /// Only the posts whose ids stand in this file, one a line; the others are passed over.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// The replay's name; the same name goes on with it, with the range that it has. By default, the time it begins.
    #[arg(long, value_name = "NAME", value_parser = name)]
    id: Option<String>,
    /// Verdicts and dead letters go to this topic (`kafka.topics.audit`).
    #[arg(long, value_name = "TOPIC", conflicts_with = "output")]
    to_topic: Option<String>,
    /// Verdicts go to this file as JSON lines, appended, none twice; what could not be judged as an `error`. Or to Parquet
    /// files in this folder, if it is one or its name ends in `.parquet`.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Most verdicts of one Parquet file.
    #[arg(long, value_name = "VERDICTS", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..), requires = "output")]
    rows: u64,
    /// Whose answers may stand in for the model's.
    #[arg(long, value_enum, default_value_t = Cached::Off)]
    cache: Cached,
    /// Most posts in a second.
    #[arg(long, value_name = "POSTS", value_parser = rate)]
    rate: Option<f64>,
    /// Wait while the live group is further behind than that.
    #[arg(long, value_name = "POSTS")]
    yield_to_lag: Option<u64>,
    /// Compare with the live verdicts on the same posts (`kafka.topics.verdicts`).
    #[arg(long)]
    compare: bool,
    /// Judge the posts of old verdicts again and list the verdicts that do not hold; nothing is published. Verdicts of
    /// `kafka.topics.verdicts`, of another topic:NAME, or of a file or a folder; posts of `kafka.topics.posts` or --input.
    #[arg(long, value_name = "PLACE", num_args = 0..=1, conflicts_with_all = ["to_topic", "output", "id", "yield_to_lag", "compare", "cache"])]
    verify: Option<Option<Source>>,
    /// How many posts are verified, or which share of them, such as 5%; drawn by a hash of their ids, the same each time.
    /// 1000 if nothing is said, or all that --ids names.
    #[arg(long, value_name = "POSTS", requires = "verify")]
    sample: Option<Sample>,
    /// How far a score may be from the old one where the fingerprints differ; under the same fingerprint, with `determinism:
    /// strict`, every bit counts.
    #[arg(long, value_name = "CHANGE", default_value_t = 0.001, value_parser = tolerance, requires = "verify")]
    tolerance: f64,
    /// How progress is told.
    #[arg(long, value_enum, default_value_t = Shown::Auto)]
    progress: Shown,
}

/// Whose answers may stand in for the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cached {
    /// Nobody's: identical posts in flight still run once.
    Off,
    /// This process's own, of this replay.
    Own,
    /// The configured cache's: its answers are then what is audited.
    Shared,
}

fn name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=100).contains(&text.len()) && text.chars().all(legal) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name: 1 to 100 letters, digits, `.`, `_` and `-`, such as audit-2026-11"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate >= 1.0 && rate.is_finite());
    rate.ok_or_else(|| format!("`{text}` is no number of posts a second, at least 1, such as 500"))
}

fn tolerance(text: &str) -> Result<f64, String> {
    let tolerance = text.parse().ok().filter(|tolerance: &f64| (0.0..=1.0).contains(tolerance));
    tolerance.ok_or_else(|| format!("`{text}` is no change of a score: 0 to 1, such as 0.001"))
}

/// What is asked for, settled.
struct Asked<'a> {
    arguments: &'a ReplayArguments,
    id: Arc<str>,
    /// The pool whose posts are judged again.
    live: KafkaSettings,
    /// The replay's own configuration.
    config: Config,
}

pub(super) fn run(arguments: &ReplayArguments) -> Result<Exit, Exit> {
    let asked = Asked::settle(arguments)?;
    let ids = arguments.ids.as_deref().map(input::ids).transpose().map_err(|why| mend(&why))?;
    if let Some(verdicts) = &arguments.verify {
        return asked.verify(verdicts.as_ref(), ids.as_ref());
    }
    let file = asked.file()?;
    if file.is_none() {
        let topic = &asked.config.kafka.output;
        replay::is_an_audit_topic(&asked.live, topic).map_err(|error| told(&error))?;
    }
    match &arguments.input {
        Some(path) => asked.records(path, ids, file),
        None => asked.range(ids, file),
    }
}

impl<'a> Asked<'a> {
    fn settle(arguments: &'a ReplayArguments) -> Result<Self, Exit> {
        let mut fixed = vec![("shadow.share", "0")];
        fixed.extend(arguments.to_topic.as_deref().map(|topic| ("kafka.topics.audit", topic)));
        match arguments.cache {
            Cached::Off => fixed.push(("cache.kind", "off")),
            Cached::Own => fixed.push(("cache.kind", "in_process")),
            Cached::Shared => {}
        }
        let defaults = arguments.progress.log_filter();
        let verdicts_in_files = matches!(&arguments.verify, Some(Some(source)) if !source.is_topic());
        let without_kafka = arguments.input.is_some() && (arguments.output.is_some() || verdicts_in_files);
        let needs = if without_kafka { Needs::ModelOnly } else { Needs::Kafka };
        let mut config = arguments.common.start(&VerbSettings { defaults, fixed: &fixed }, needs)?;
        if config.task != Task::Classify {
            return Err(mend("task: only verdicts are judged again; use the configuration of the judging pool"));
        }
        let now = || Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let id: Arc<str> = arguments.id.clone().unwrap_or_else(now).into();
        let live = config.kafka.clone();
        let unpublished = arguments.output.is_some() || arguments.verify.is_some();
        let Some(audit) = live.audit.clone().or(unpublished.then(|| live.output.clone())) else {
            return Err(mend("nothing says where verdicts go: set kafka.topics.audit, or say --to-topic or --output"));
        };
        config.kafka = KafkaSettings {
            group: replay::group(&live.group, &id),
            output: audit.clone(),
            dead_letters: audit,
            flagged: None,
            shadow: None,
            checkpoints: None,
            evidence: EvidenceSettings::default(),
            replay: Some(id.clone()),
            ..live.clone()
        };
        if arguments.output.is_some() {
            // Offsets are committed once a file's lines are durable: no transaction can hold them.
            config.kafka.delivery = Delivery::AtLeastOnce;
        }
        Ok(Self { arguments, id, live, config })
    }

    fn file(&self) -> Result<Option<Filed>, Exit> {
        let Some(path) = &self.arguments.output else { return Ok(None) };
        let topic = self.arguments.input.is_none().then_some(&*self.live.posts);
        let of = Of { replay: &self.id, topic };
        Filed::open(path, of, self.arguments.rows).map(Some).map_err(|why| mend(&format!("--output: {why}")))
    }

    fn range(&self, ids: Option<HashSet<String>>, file: Option<Filed>) -> Result<Exit, Exit> {
        let ReplayArguments { from, to, rate, yield_to_lag, .. } = self.arguments;
        let request = Request { from: from.clone(), to: to.clone() };
        let (live, own) = (&self.live, &self.config.kafka);
        let plan = replay::fix(live, own, &request).map_err(|error| told(&error))?;
        let watch = Arc::new(Watch::default());
        plan.gaps.iter().for_each(|gap| watch.gap(*gap));
        let watcher = Watcher::connect(live, own, &plan, *yield_to_lag, watch.clone()).map_err(|error| told(&error))?;
        let replayed = Arc::new(Replayed::new(self.id.clone(), ids, self.live_verdicts(&plan)?));
        let floors = file.as_ref().map(|file| file.written().floors()).unwrap_or_default();
        let bounds = Bounds { floors, rate: *rate, watch: watch.clone() };
        let outlet = file.map(Outlet::File);
        let replay = Replay { replayed: replayed.clone(), input: Input::Topic(bounds), outlet };

        let mut progress = Progress::new(self.arguments.progress, &self.id);
        let all = plan.offsets();
        let (tally, finished) = self.drive(replay, |_, ended| {
            watcher.run(ended, |Seen { left, live_lag, held }| {
                progress.show(Way { done: all.saturating_sub(left), left: Some(left), live_lag, held });
            })
        })?;
        progress.end();
        let gaps = watch.gaps();
        let retention = replay::taken_by_retention(live, &gaps.first).map_err(|error| told(&error))?;
        let ended = Ended { finished, resumed: plan.resumed, left: Some(all), gaps: gaps.offsets, retention };
        Ok(self.tell(ended, &replayed, &tally))
    }

    fn records(&self, path: &Path, ids: Option<HashSet<String>>, file: Option<Filed>) -> Result<Exit, Exit> {
        let written = file.as_ref().map(|file| file.written().clone());
        let resumed = matches!(&written, Some(Written::Rows(rows)) if !rows.is_empty());
        let skip = move |original: &Original| {
            let Original { topic, partition, offset, .. } = original;
            written.as_ref().is_some_and(|written| written.has(topic, *partition, offset.0))
        };
        let records = input::records(path, skip).map_err(|why| mend(&format!("--input: {why}")))?;
        let replayed = Arc::new(Replayed::new(self.id.clone(), ids, None));
        let input = Input::Records { records, rate: self.arguments.rate };
        let replay = Replay { replayed: replayed.clone(), input, outlet: file.map(Outlet::File) };

        let mut progress = Progress::new(self.arguments.progress, &self.id);
        let (tally, finished) = self.drive(replay, |tally, ended| {
            while !ended.is_cancelled() {
                let done = tally.finished() + replayed.sheet().passed_over;
                progress.show(Way { done, left: None, live_lag: None, held: false });
                std::thread::sleep(TURN);
            }
            true
        })?;
        progress.end();
        let ended = Ended { finished, resumed, left: None, gaps: 0, retention: Vec::new() };
        Ok(self.tell(ended, &replayed, &tally))
    }

    fn tell(&self, ended: Ended, replayed: &Replayed, tally: &Tally) -> Exit {
        Summary::new(&self.id, ended, replayed.sheet(), tally).tell(self.arguments.progress == Shown::Json)
    }

    fn live_verdicts(&self, plan: &Plan) -> Result<Option<Live>, Exit> {
        if !self.arguments.compare {
            return Ok(None);
        }
        let mut progress = super::Progress::new("live verdicts read");
        let live = replay::live(&self.live, plan, |topic| progress.tick(topic));
        live.map(Some).map_err(|error| told(&error))
    }

    /// Runs the road while this thread watches it; `watch` is told when the road has ended. Whether it was watched to the
    /// end of the range, and nobody stopped it before.
    fn drive(
        &self,
        replay: Replay,
        watch: impl FnOnce(&Tally, &CancellationToken) -> bool,
    ) -> Result<(Arc<Tally>, bool), Exit> {
        let runtime = runtime()?;
        let (stop, ended, tally) = (CancellationToken::new(), CancellationToken::new(), Arc::new(Tally::default()));
        let road = runtime.spawn({
            let (config, stop, ended, tally) = (self.config.clone(), stop.clone(), ended.clone(), tally.clone());
            async move {
                let _ended = ended.drop_guard();
                run_road(&config, replay, tally, stop).await
            }
        });
        let to_the_end = watch(&tally, &ended);
        let outcome = runtime.block_on(road).map_err(|_| Exit::Failed)?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome.map(|whole| (tally, whole && to_the_end))
    }
}

/// Whether nobody stopped it.
async fn run_road(config: &Config, replay: Replay, tally: Arc<Tally>, stop: CancellationToken) -> Result<bool, Exit> {
    app::stop_on_signals(&stop).map_err(|error| {
        tracing::error!(%error, "cannot listen for signals");
        Exit::Failed
    })?;
    let loading = config.clone();
    // A signal while the model loads must not wait for it: there is nothing in flight yet.
    let judges = tokio::select! {
        loaded = tokio::task::spawn_blocking(move || app::load(&loading)) => loaded.map_err(|_| Exit::Failed)?,
        () = stop.cancelled() => return Ok(false),
    };
    let judges = judges.map_err(|error| report(&error))?;
    app::replay(config, judges, replay, tally, stop.clone()).await.map_err(|error| report(&error))?;
    Ok(!stop.is_cancelled())
}

/// The command line or the configuration must be mended.
fn mend(why: &str) -> Exit {
    eprintln!("{why}");
    Exit::Config
}
