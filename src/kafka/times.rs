//! The part of a topic between two times.

use super::range::{Extent, ReadError, Reader, Span};

/// From the first record of `from` or later up to the first of `to` or later, milliseconds since the Unix epoch; without
/// a time, from the beginning and to the end.
pub fn between(
    reader: &Reader,
    topic: &str,
    extents: &[Extent],
    from: Option<i64>,
    to: Option<i64>,
) -> Result<Vec<Span>, ReadError> {
    let at = |ms| reader.at_time(topic, extents, ms);
    let (from, to) = (from.map(at).transpose()?, to.map(at).transpose()?);
    let span = |extent: &Extent| {
        let Extent { partition, low, stable, .. } = *extent;
        // A time that no record has reached is the end.
        let place = |offsets: &Option<_>, usual| match offsets {
            None => usual,
            Some(offsets) => std::collections::BTreeMap::get(offsets, &partition).copied().unwrap_or(stable),
        };
        let start = place(&from, low).max(low);
        Span { partition, start, end: place(&to, stable).min(stable).max(start) }
    };
    Ok(extents.iter().map(span).collect())
}
