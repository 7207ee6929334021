//! `moderato diff`: what changes between two sets of verdicts, or would change under another policy.

mod csv;
mod input;
mod judged;
mod posts;
mod sides;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::judged::Judged;
use self::sides::Accounts;
use super::places::Source;
use super::{Common, VerbSettings, problems};
use crate::config::{Config, KafkaSettings, Needs, Setting, duration};
use crate::diff::candidate::Candidate;
use crate::diff::report::{DiffV1, JudgedReport};
use crate::diff::{Asked, Books, By, Cap, Compared, Fields, Range, compare, html, place};
use crate::error::Exit;
use crate::eval::bootstrap::Resampling;
use crate::eval::dataset::{Dataset, Wanted};
use crate::model;
use crate::policy::Policy;
use crate::reconcile::Place;

/// What would change: the verdicts of A beside those of B on the same posts, or beside what another policy makes of A's raw
/// scores, without running a model. Or with --judge: posts that are judged in this run, by the policy in force and by the
/// candidate.
///
/// A place of verdicts is a file (.jsonl or .parquet), a folder of such files, `-` for JSON lines on standard input, or
/// topic:NAME.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the same; 3 differences found; 1 could not be read or written; 2 mend the command line, the policy or the configuration."
)]
pub(super) struct DiffArguments {
    #[command(flatten)]
    common: Common,
    /// The verdicts to compare with.
    a: Option<Source>,
    /// The verdicts that are compared; or leave it out and name a candidate with --policy (and its model's folder, for its
    /// tokenizer, with --model or -c).
    b: Option<Source>,
    /// Judge the posts of this place (topic:NAME, or `post.v1` in .jsonl or .parquet, a folder or `-`) in this run, under the
    /// policy of the configuration and under --policy: each with its own prompt, computed once. Nothing is published or
    /// committed.
    #[arg(long, value_name = "PLACE", conflicts_with = "a")]
    judge: Option<Source>,
    /// With --judge, a key that only the candidate has so, such as model.path=FOLDER; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::setting)]
    candidate_set: Vec<Setting>,
    /// Only posts from here on: a time, or offsets (0:1500,1:1400) of the posts' topic.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    from: Option<Place>,
    /// Only posts before this.
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Option<Place>,
    /// Of verdicts that replays gave, only those of this one; said twice, of A and of B.
    #[arg(long, value_name = "ID", conflicts_with = "judge")]
    replay: Vec<String>,
    /// Join by where posts stood, or by their id and version; by where they stood if both sides name the same topic.
    #[arg(long, value_enum)]
    by: Option<Joining>,
    /// A change of a score up to this is none.
    #[arg(long, value_name = "CHANGE", default_value_t = 0.0)]
    tolerance: f64,
    /// How many flips, and verdicts on one side only, are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    list: usize,
    /// The most that B may act in any window, such as 100/1h for every label or misinformation=100/1h; may be repeated. A
    /// candidate policy's own quotas count where nothing is said.
    #[arg(long, value_name = "[LABEL=]N/WINDOW", value_parser = cap)]
    max_acts: Vec<Cap>,
    /// The window in which acts are counted for labels without a quota.
    #[arg(long, value_name = "WINDOW", default_value = "1h", value_parser = window)]
    window: Duration,
    /// What the posts truly are: lines with id, text and label, as `moderato eval` reads. Tells which side was right.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The posts (`post.v1`), a file or topic:NAME: their texts are shown with the flips.
    #[arg(long, value_name = "PLACE")]
    posts: Option<Source>,
    /// Also tell differences for each value of this field of --labels, or of --posts; may be repeated.
    #[arg(long, value_name = "FIELD")]
    slice: Vec<String>,
    /// How often labelled posts are drawn again for the 95 % intervals; 0 for none.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    resamples: usize,
    /// Where the random numbers for that begin.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Print one JSON object (`moderato schema diff`) in place of the tables.
    #[arg(long)]
    json: bool,
    /// Write a line for every flip, the worst first. No texts.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with charts, complete in itself.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Joining {
    Coordinates,
    Post,
}

fn window(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| format!("`{text}` is not a duration, such as 10m, 1h or 1d"))
}

fn cap(text: &str) -> Result<Cap, String> {
    let (label, rest) = text.split_once('=').map_or((None, text), |(label, rest)| (Some(label.to_owned()), rest));
    let parsed = rest.split_once('/').and_then(|(most, window)| Some((most.parse().ok()?, duration(window)?)));
    let (most, window) = parsed.ok_or("write a number and a duration, such as 100/1h or misinformation=100/1h")?;
    Ok(Cap { label, most, window })
}

/// Says what must be mended.
fn mend(message: &str) -> Exit {
    eprintln!("{message}");
    Exit::Config
}

pub(super) fn run(arguments: &DiffArguments) -> Result<Exit, Exit> {
    match (&arguments.judge, &arguments.a) {
        (Some(posts), _) => arguments.judge(posts),
        (None, Some(a)) => arguments.read(a),
        (None, None) => Err(mend(
            "name a place of verdicts and a second one, or a candidate with --policy; or posts to judge with --judge",
        )),
    }
}

/// What is in the books, and how it came there.
struct Read<'a> {
    policies: [Option<&'a Policy>; 2],
    accounts: Accounts,
    judged: Option<JudgedReport>,
}

impl DiffArguments {
    /// Posts, judged here by two.
    fn judge(&self, posts: &Source) -> Result<Exit, Exit> {
        if self.common.policy.is_none() && self.candidate_set.is_empty() {
            return Err(mend("--judge: name a candidate with --policy, or what else it has with --candidate-set"));
        }
        if posts.is_stdin() && self.posts.as_ref().is_some_and(Source::is_stdin) {
            return Err(mend("standard input can be read only once: name a file in --judge or --posts"));
        }
        self.check()?;
        let configs = judged::Configs::of(self, posts)?;
        let mut books = Books::default();
        let Judged { policies, accounts, report } = judged::run(&configs, posts, &self.range(), &mut books)?;
        let read = Read { policies: [Some(&policies[0]), Some(&policies[1])], accounts, judged: Some(report) };
        self.compare(&mut books, Some(&configs.live.kafka), read)
    }

    /// Verdicts that are there.
    fn read(&self, a: &Source) -> Result<Exit, Exit> {
        if !self.candidate_set.is_empty() {
            return Err(mend("--candidate-set: it is for posts that are judged here; name them with --judge"));
        }
        match (&self.b, &self.common.policy) {
            (None, None) => {
                return Err(mend("name a second place of verdicts, or a candidate policy with --policy"));
            }
            (Some(_), Some(_)) => return Err(mend("name a second place of verdicts or a --policy, not both")),
            (Some(b), _) if b == a && b.is_stdin() => return Err(mend("standard input can be one side only")),
            _ => self.check()?,
        }
        let config = self.config()?;
        let candidate = self.candidate(config.as_ref())?;
        let kafka = config.as_ref().map(|config| &config.kafka);
        let range = self.range();
        let mut books = Books::default();
        let reading = sides::Reading { kafka, range: &range, replays: self.replays()? };
        let accounts = reading.both((a, self.b.as_ref()), candidate.as_ref(), &mut books)?;
        let policies = [None, candidate.as_ref().map(|candidate| &candidate.policy)];
        self.compare(&mut books, kafka, Read { policies, accounts, judged: None })
    }

    fn replays(&self) -> Result<[Option<&str>; 2], Exit> {
        match &self.replay[..] {
            [] => Ok([None; 2]),
            [both] => Ok([Some(both); 2]),
            [a, b] => Ok([Some(a), Some(b)]),
            _ => Err(mend("--replay: say it once, for both sides, or twice, of A and of B")),
        }
    }

    fn range(&self) -> Range {
        Range { from: self.from.clone(), to: self.to.clone() }
    }

    fn compare(&self, books: &mut Books, kafka: Option<&KafkaSettings>, read: Read<'_>) -> Result<Exit, Exit> {
        let Read { policies, accounts, judged } = read;
        let known = books.label_words(policies[1]);
        let dataset = self.labels.as_deref().map(|path| self.dataset(path, &known)).transpose()?;
        let fields = self.fields(dataset.as_ref(), kafka)?;
        let mut compared = compare(
            books,
            &Asked {
                by: self.by.map(|by| match by {
                    Joining::Coordinates => By::Coordinates,
                    Joining::Post => By::Post,
                }),
                tolerance: self.tolerance,
                list: self.list,
                caps: &self.max_acts,
                window: self.window,
                policies,
                truth: dataset.as_ref().map(|dataset| (dataset, &known[..])),
                fields: &fields,
                resampling: Resampling { resamples: self.resamples, seed: self.seed },
            },
        );
        accounts.enter(&mut compared.report);
        compared.report.judged = judged;
        if let Some(posts) = &self.posts {
            posts::show(posts, kafka, books, &mut compared)?;
        }
        self.write(books, &compared)?;
        Ok(if compared.report.same { Exit::Ok } else { Exit::Differs })
    }

    /// What holds for either way.
    fn check(&self) -> Result<(), Exit> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(mend("--tolerance: write 0 or more, such as 0.001"));
        }
        if !self.slice.is_empty() && self.labels.is_none() && self.posts.is_none() {
            return Err(mend("--slice: the fields of posts stand in --labels or --posts; name one"));
        }
        self.check_outputs()
    }

    /// The reading may be long: a file that cannot be written is told before.
    fn check_outputs(&self) -> Result<(), Exit> {
        for path in self.csv.iter().chain(&self.html) {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() || path.is_dir() {
                return Err(mend(&format!("{}: name a file in a folder that is there", path.display())));
            }
        }
        Ok(())
    }

    /// Only where something in it is needed: two files are compared without any.
    fn config(&self) -> Result<Option<Config>, Exit> {
        let sources = [self.a.as_ref(), self.b.as_ref(), self.posts.as_ref()];
        let topics = sources.into_iter().flatten().any(Source::is_topic);
        let needs = match (topics, self.common.policy.is_some()) {
            (true, true) => Needs::Kafka,
            (true, false) => Needs::KafkaOnly,
            (false, true) => Needs::ModelOnly,
            (false, false) => return Ok(None),
        };
        let quiet = VerbSettings { defaults: &[("log.filter", "warn")], fixed: &[] };
        self.common.start(&quiet, needs).map(Some)
    }

    /// The candidate, if one is asked for.
    fn candidate(&self, config: Option<&Config>) -> Result<Option<Candidate>, Exit> {
        let (Some(file), Some(config)) = (&self.common.policy, config) else { return Ok(None) };
        let file = Path::new(file);
        let policy = Policy::load(file).map_err(|error| mend(&error.to_string()))?;
        let prompt = model::load_tokenizer_only(&config.model.path, &policy);
        let prompt = prompt.map_err(|error| mend(&error.to_string()))?;
        let in_force = self.in_force()?;
        Ok(Some(Candidate::new(policy, file.into(), &prompt, in_force)))
    }

    /// The policy that the configuration names without --policy, if there is one: verdicts do not tell what was masked.
    fn in_force(&self) -> Result<Option<Policy>, Exit> {
        let Common { config, set, model, .. } = &self.common;
        let without = Common { config: config.clone(), set: set.clone(), model: model.clone(), policy: None };
        let raw = without.load(&VerbSettings::default(), Needs::KafkaOnly).map_err(|error| problems(&error))?.raw;
        Ok(Policy::load(Path::new(&raw.policy)).ok())
    }

    fn dataset(&self, path: &Path, known: &[String]) -> Result<Dataset, Exit> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|error| mend(&format!("{name} cannot be read: {error}")))?;
        let wanted = Wanted { labels: known.to_vec(), slices: self.slice.clone(), adversarial: false };
        Dataset::parse(&name, &bytes, &wanted).map_err(|error| super::eval::faulty(&name, &error.0))
    }

    fn fields(&self, dataset: Option<&Dataset>, kafka: Option<&KafkaSettings>) -> Result<Fields, Exit> {
        match (dataset, &self.posts) {
            _ if self.slice.is_empty() => Ok(Fields::default()),
            (Some(dataset), _) => Ok(Fields::of(dataset, &self.slice)),
            (None, Some(posts)) => posts::fields(posts, kafka, &self.slice),
            (None, None) => Ok(Fields::default()),
        }
    }

    fn write(&self, books: &Books, compared: &Compared) -> Result<(), Exit> {
        let save = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| {
                eprintln!("{}: {error}", path.display());
                Exit::Failed
            })
        };
        if let Some(path) = &self.csv {
            save(path, &csv::lines(books, &compared.flips))?;
        }
        let report: &DiffV1 = &compared.report;
        if let Some(path) = &self.html {
            save(path, &html::page(report))?;
        }
        if self.json {
            say!("{}", serde_json::to_string(report).map_err(|_| Exit::Failed)?);
        } else {
            say!("{}", text::text(report));
        }
        Ok(())
    }
}
