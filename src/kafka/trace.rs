//! W3C trace context (`traceparent`, `tracestate`) in and out of record headers. Baggage is the sender's to fill and is
//! not passed on.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};

use super::headers::{last, without};

/// What belongs to the context.
const FIELDS: [&str; 2] = ["traceparent", "tracestate"];
/// Longer ones are not looked at: W3C wants 512 bytes of `tracestate` to be passed on.
const LONGEST: usize = 512;

/// No context.
pub(super) fn none() -> SpanContext {
    SpanContext::empty_context()
}

/// The producer's context; an invalid one where there is none that can be read.
pub(super) fn extract(headers: &BorrowedHeaders) -> SpanContext {
    let carrier = Carrier { parent: text(headers, c"traceparent"), state: text(headers, c"tracestate") };
    if carrier.parent.is_none() {
        return none();
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().clone()
}

fn text<'a>(headers: &'a BorrowedHeaders, name: &std::ffi::CStr) -> Option<&'a str> {
    last(headers, name).filter(|value| value.len() <= LONGEST).and_then(|value| std::str::from_utf8(value).ok())
}

/// The headers with this context in the place of any that they had; without one they stay as they are.
pub(super) fn inject(headers: OwnedHeaders, context: Option<&SpanContext>) -> OwnedHeaders {
    let Some(context) = context.filter(|context| context.is_valid()) else { return headers };
    let mut carrier = Added(Some(without(headers, |name| FIELDS.iter().any(|field| name == field.as_bytes()))));
    let context = Context::new().with_remote_span_context(context.clone());
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.0.unwrap_or_default()
}

struct Carrier<'a> {
    parent: Option<&'a str>,
    state: Option<&'a str>,
}

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent,
            "tracestate" => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        FIELDS.to_vec()
    }
}

struct Added(Option<OwnedHeaders>);

impl Injector for Added {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` says nothing.
        if !value.is_empty() {
            let headers = self.0.take().unwrap_or_default();
            self.0 = Some(headers.insert(Header { key, value: Some(&value) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

    fn headers(all: &[(&str, &[u8])]) -> OwnedHeaders {
        all.iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }))
    }

    fn pairs(headers: &OwnedHeaders) -> Vec<(String, String)> {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    #[test]
    fn a_context_goes_in_and_out_unchanged_and_takes_the_place_of_the_old_one() {
        let came = headers(&[("traceparent", PARENT.as_bytes()), ("tracestate", b"vendor=1")]);
        let context = extract(came.as_borrowed());
        let old = headers(&[("traceparent", OTHER.as_bytes()), ("tracestate-x", b"k"), ("traceparent", b"broken")]);
        let new = inject(old, Some(&context));
        let expected = [("tracestate-x", "k"), ("traceparent", PARENT), ("tracestate", "vendor=1")];
        assert_eq!(pairs(&new), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_context_is_none_and_leaves_the_headers_alone() {
        let long = vec![b'0'; LONGEST + 1];
        for bad in [b"".as_slice(), b"00-0-0-0", b"\xff\xfe", &long, &PARENT.as_bytes()[..30]] {
            let came = headers(&[("traceparent", bad)]);
            let context = extract(came.as_borrowed());
            assert!(!context.is_valid(), "{bad:?}");
            assert_eq!(pairs(&inject(came.clone(), Some(&context))), pairs(&came));
        }
        assert!(!extract(OwnedHeaders::new().as_borrowed()).is_valid());
    }
}
