//! `moderato check`: everything that would stop the worker, found before it starts.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Common, VerbSettings, duration, runtime};
use crate::app;
use crate::cache::Cache;
use crate::config::{CacheSettings, Config, Needs};
use crate::error::Exit;
use crate::kafka::probe;
use crate::pipeline::Work;

/// What the broker may take; the probes run side by side.
const BROKER_BUDGET: Duration = Duration::from_secs(8);

/// Checks the configuration, then broker, topics, Redis, model and device.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    common: Common,
    /// How long all of it may take: a large model loads for minutes, and TensorRT builds its engines.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    wait: Duration,
}

/// What was found, or what is wrong and the exit code it leads to.
type Outcome = Result<String, (Exit, String)>;

/// Tries one thing.
type Probe = fn(&Config) -> Outcome;

/// What was asked, and the answer.
type Finding = (&'static str, Outcome);

pub(super) fn run(arguments: &CheckArguments) -> Result<Exit, Exit> {
    let loaded = arguments.common.load(&VerbSettings::default(), Needs::Kafka);
    let (raw, checked) = match loaded {
        Ok(loaded) => (Some(loaded.raw), loaded.checked),
        Err(error) => (None, Err(error)),
    };
    if let Some(text) = raw.and_then(|raw| serde_json::to_string_pretty(&raw).ok()) {
        say!("configuration, merged:\n{text}\n");
    }
    let config = match checked {
        Ok(config) => config,
        Err(error) => {
            say!("FAIL  configuration: {} problem(s)", error.0.len());
            error.0.iter().for_each(|problem| say!("      {problem}"));
            return Err(Exit::Config);
        }
    };
    say!("ok    configuration");
    Ok(probe_all(&config, arguments.wait))
}

fn probe_all(config: &Config, wait: Duration) -> Exit {
    let deadline = Instant::now() + wait;
    let (found, findings) = mpsc::channel();
    let mut probes: Vec<(&'static str, Probe)> =
        vec![("kafka", kafka), ("cache", cache), ("state", state), ("model", model)];
    if config.kafka.schema_registry.is_some() {
        probes.push(("schema registry", schemas));
    }
    let mut missing: Vec<&str> = probes.iter().map(|(name, _)| *name).collect();
    for (name, probe) in probes {
        let (found, config) = (found.clone(), config.clone());
        // A probe that outlives the budget is left behind; the process ends anyway.
        thread::spawn(move || found.send((name, probe(&config))));
    }
    let mut exit = Exit::Ok;
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((name, outcome)): Result<Finding, _> = findings.recv_timeout(left) else { break };
        missing.retain(|waiting| *waiting != name);
        match outcome {
            Ok(what) => say!("ok    {name}: {what}"),
            Err((code, what)) => {
                say!("FAIL  {name}: {what}");
                exit = if code == Exit::Config || exit == Exit::Config { Exit::Config } else { code };
            }
        }
    }
    for name in &missing {
        let more = if *name == "model" { "; one that takes longer to load wants `--wait 5m`" } else { "" };
        say!("FAIL  {name}: no answer within {} s{more}", wait.as_secs());
        exit = if exit == Exit::Config { exit } else { Exit::Failed };
    }
    exit
}

fn kafka(config: &Config) -> Outcome {
    probe::probe(&config.kafka, BROKER_BUDGET).map_err(|what| (Exit::Failed, what))
}

/// A Redis that does not answer is no reason not to start: the worker judges without it. The check says so all the
/// same, because somebody configured it.
fn cache(config: &Config) -> Outcome {
    let settings = match &config.cache {
        CacheSettings::Off => return Ok("off: every post runs".to_owned()),
        CacheSettings::InProcess { max_entries, .. } => {
            return Ok(format!("in process, {max_entries} answers at most"));
        }
        CacheSettings::Redis(settings) => settings,
    };
    let runtime = runtime().map_err(|exit| (exit, "no runtime".to_owned()))?;
    runtime.block_on(async {
        let cache = Cache::open(&config.cache, Arc::default()).map_err(|what| (Exit::Config, what))?;
        let mend = "start it, or mend cache.redis.url, cache.redis.username, cache.redis.password_file or cache.redis.ca_file; without it every post runs on the model";
        cache.ping().await.map_err(|what| (Exit::Failed, format!("{what}; {mend}")))?;
        Ok(format!("redis answers ({} server(s))", settings.urls.len()))
    })
}

fn schemas(config: &Config) -> Outcome {
    let Some(settings) = &config.kafka.schema_registry else { return Ok("none".to_owned()) };
    app::schemas::probe(config, settings).map_err(|error| (error.exit(), error.to_string()))
}

fn state(config: &Config) -> Outcome {
    app::suspects(config).map_err(|error| (error.exit(), error.to_string()))?;
    Ok(format!("{} can be written", config.state_dir.display()))
}

fn model(config: &Config) -> Outcome {
    let work = app::load_work(config).map_err(|error| (error.exit(), error.to_string()))?;
    let (info, policy, revision) = match &work {
        Work::Judge { model, policy } => (&model.info, &policy.id, &policy.revision),
        Work::Draft { model, policy } => (&model.info, &policy.id, &policy.revision),
    };
    let nodes: Vec<String> = info.nodes.iter().map(|(provider, nodes)| format!("{nodes} {provider}")).collect();
    Ok(format!(
        "{} {} on {} (nodes: {}), onnxruntime {}, {}; policy {} {} with {} prompt tokens",
        info.name,
        info.precision,
        info.provider,
        nodes.join(", "),
        info.onnxruntime_version,
        info.contract,
        policy,
        revision,
        info.prompt_tokens
    ))
}
