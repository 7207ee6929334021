//! Is the log of verdicts as it was written? Reads what was signed, then the output topic, and hands both to the verifier.
//!
//! What was signed comes first: whatever it covers was there before, and so lies below the ends that are asked for
//! afterwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Delivery, KafkaSettings};
use crate::evidence::checkpoint::{CheckpointV1, Proven};
use crate::evidence::key::PublicKey;
use crate::evidence::verify::{AuditV1, Fault, Kind, Place, Rules, Seen, Verifier, WINDOW};
use crate::kafka::cleanup::is_compacted;
use crate::kafka::range::{Extent, ReadError, Reader, Record, Span, Topic};
use crate::receipt::Partition;

/// Records of a partition that are read before the others get their turn: all advance together through their ranges, so
/// that few links wait for the one before.
const SLICE: i64 = 20_000;

/// What is asked for.
pub struct Request<'a> {
    /// The topic; the pool's output topic unless told.
    pub topic: Option<&'a str>,
    /// Where each partition begins, if not at its beginning.
    pub from: BTreeMap<Partition, i64>,
    /// The same for all, by time.
    pub since_ms: Option<i64>,
    /// Keys whose checkpoints count.
    pub keys: &'a [PublicKey],
    /// Whether a post may have several records although the pool delivers exactly once.
    pub allow_repeats: bool,
    /// How many faults are listed.
    pub list: usize,
}

/// Reads everything and tells what was found. `progress` hears of every record, with the topic it stands in.
pub fn verify(
    settings: &KafkaSettings,
    request: &Request<'_>,
    mut progress: impl FnMut(&str),
) -> Result<AuditV1, ReadError> {
    let reader = Reader::connect(settings)?;
    let topic = match request.topic {
        Some(name) => Topic { key: "--topic", name },
        None => Topic { key: settings.output_key(), name: &settings.output },
    };
    reader.extents(topic)?; // One that is not there is told before anything long begins.
    let (proven, forged) = checkpoints(&reader, settings, request.keys, &mut progress)?;
    let begun_ms = jiff::Timestamp::now().as_millisecond();
    let extents = reader.extents(topic)?;
    let spans = spans(&reader, topic.name, request, &extents)?;
    let rules = Rules {
        window: WINDOW,
        compacted: is_compacted(settings, topic.name),
        repeats_allowed: request.allow_repeats || settings.delivery == Delivery::AtLeastOnce,
        cut: spans.iter().filter(|span| span.start > 0).map(|span| span.partition).collect(),
        settled_ms: None,
        list: request.list,
    };
    let mut verifier = Verifier::new(topic.name, rules, proven);
    for slice in slices(&spans) {
        reader.read(topic.name, &slice, |record| {
            progress(topic.name);
            verifier.enter(&seen(record, record.sealed().as_deref()));
            Ok::<(), ReadError>(())
        })?;
    }
    if is_written(&reader, topic, &extents)? {
        // A record may come later than one that was linked to it, by as long as a delivery takes.
        let patience = i64::try_from(settings.delivery_timeout.as_millis()).unwrap_or(i64::MAX);
        verifier.settled_before(begun_ms.saturating_sub(patience));
    }
    Ok(verifier.finish(forged))
}

/// Checkpoints whose signature holds, and the others. Without keys nothing can be proved, and nothing is read.
fn checkpoints(
    reader: &Reader,
    settings: &KafkaSettings,
    keys: &[PublicKey],
    progress: &mut impl FnMut(&str),
) -> Result<(Vec<Proven>, Vec<Fault>), ReadError> {
    let (mut proven, mut forged) = (Vec::new(), Vec::new());
    if keys.is_empty() {
        return Ok((proven, forged));
    }
    let Some(name) = &settings.checkpoints else {
        return Err(ReadError::Asked(
            "--public-key: kafka.topics.checkpoints has to name what it is to prove".to_owned(),
        ));
    };
    let topic = Topic { key: "kafka.topics.checkpoints", name };
    let spans: Vec<Span> = reader.extents(topic)?.iter().map(Extent::whole).collect();
    reader.read(name, &spans, |record| {
        progress(name);
        match CheckpointV1::prove(record.value().unwrap_or_default(), keys) {
            // Another pool's, whose topic may have other chains.
            Ok((checkpoint, one)) if checkpoint.topic == settings.posts => proven.push(one),
            Ok(_) => {}
            // A tombstone takes a chain's last checkpoint from a compacted topic.
            Err(_) if record.is_tombstone() => {}
            Err(why) => forged.push(Fault {
                kind: Kind::ForgedCheckpoint,
                at: Place { partition: record.partition(), offset: record.offset() },
                instance: None,
                seq: None,
                source: None,
                records: 1,
                what: format!("{name}: {why}"),
            }),
        }
        Ok::<(), ReadError>(())
    })?;
    Ok((proven, forged))
}

fn spans(reader: &Reader, topic: &str, request: &Request<'_>, extents: &[Extent]) -> Result<Vec<Span>, ReadError> {
    let known: BTreeSet<Partition> = extents.iter().map(|extent| extent.partition).collect();
    if let Some(unknown) = request.from.keys().find(|partition| !known.contains(partition)) {
        return Err(ReadError::Asked(format!(
            "--from: `{topic}` has no partition {unknown}; it has {}",
            extents.len()
        )));
    }
    let by_time = match request.since_ms {
        Some(ms) => Some(reader.at_time(topic, extents, ms)?),
        None => None,
    };
    let start = |extent: &Extent| {
        let timed = by_time.as_ref().map(|found| found.get(&extent.partition).copied().unwrap_or(extent.high));
        let asked = request.from.get(&extent.partition).copied().or(timed).unwrap_or(extent.low);
        asked.clamp(extent.low, extent.high)
    };
    Ok(extents.iter().map(|extent| Span { start: start(extent), ..extent.whole() }).collect())
}

/// The spans cut into as many parts each, to be read one after another.
fn slices(spans: &[Span]) -> impl Iterator<Item = Vec<Span>> {
    let longest = spans.iter().map(|span| span.end - span.start).max().unwrap_or(0);
    let parts = (longest / SLICE).max(0) + 1;
    let cut = move |span: &Span, part: i64| {
        let at = |part: i64| {
            let share = i128::from(span.end - span.start) * i128::from(part) / i128::from(parts);
            span.start + i64::try_from(share).unwrap_or_default()
        };
        Span { partition: span.partition, start: at(part), end: at(part + 1) }
    };
    (0..parts).map(move |part| spans.iter().map(|span| cut(span, part)).collect())
}

fn is_written(reader: &Reader, topic: Topic<'_>, before: &[Extent]) -> Result<bool, ReadError> {
    let now = reader.extents(topic)?;
    Ok(now.iter().zip(before).any(|(now, before)| now.high > before.high))
}

fn seen<'a>(record: &'a Record<'_>, value: Option<&'a [u8]>) -> Seen<'a> {
    let source = |()| {
        let topic = record.header(c"moderato.source.topic")?;
        let partition = record.number(c"moderato.source.partition")?;
        Some((topic, partition, record.number(c"moderato.source.offset")?))
    };
    Seen {
        at: Place { partition: record.partition(), offset: record.offset() },
        timestamp_ms: record.timestamp_ms().unwrap_or_default(),
        link: record.header(c"moderato.chain"),
        source: source(()),
        key: record.key(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_span_once_and_advance_together() {
        let spans = [(0, 5, 5), (1, 0, 100_000), (2, 10, 61_234)];
        let spans = spans.map(|(partition, start, end)| Span { partition, start, end });
        let all: Vec<Vec<Span>> = slices(&spans).collect();
        assert_eq!(all.len(), 6);
        for (index, span) in spans.iter().enumerate() {
            let parts: Vec<Span> = all.iter().map(|slice| slice[index]).collect();
            assert_eq!((parts[0].start, parts[5].end), (span.start, span.end));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
        }
        let lengths: Vec<i64> = all.iter().map(|slice| slice[2].end - slice[2].start).collect();
        assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1, "{lengths:?}");
    }
}
