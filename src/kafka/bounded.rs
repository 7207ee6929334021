//! The copy of a post's headers on its dead letter, or on a flagged post, within bounds: headers are the sender's to
//! choose, and what we add must still fit where the post did.

#![expect(unsafe_code, reason = "rdkafka reads a header whose name is not UTF-8 by panicking")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_header_get_all, rd_kafka_headers_t};
use rdkafka::message::{Headers as _, OwnedHeaders};
use rdkafka::types::RDKafkaRespErr;

use crate::receipt::Headers;

/// Most headers that are copied.
const MOST: usize = 256;
/// Most bytes of names and values together that are copied.
const MOST_BYTES: usize = 64 * 1024;

/// The headers in their order, those left out that no longer fit, and how many these are. Names that are not UTF-8,
/// names that come twice and null values survive.
pub(super) fn copy(headers: &Headers) -> (OwnedHeaders, usize) {
    let Some(all) = headers.0.as_ref().and_then(|any| any.downcast_ref::<OwnedHeaders>()) else {
        return (OwnedHeaders::new(), 0);
    };
    let (mut count, mut bytes) = (0, 0);
    let mut fits = |header: &Native| {
        let fits = count < MOST && bytes + header.bytes() <= MOST_BYTES;
        if fits {
            count += 1;
            bytes += header.bytes();
        }
        fits
    };
    let kept: Vec<Native> = (0..all.count()).filter_map(|index| Native::read(all, index)).filter(&mut fits).collect();
    let dropped = all.count() - kept.len();
    if dropped == 0 {
        return (all.as_borrowed().detach(), 0);
    }
    let copy = OwnedHeaders::new_with_capacity(kept.len());
    kept.iter().for_each(|header| header.add_to(&copy));
    (copy, dropped)
}

/// One header as librdkafka holds it: valid as long as the list it was read from.
struct Native {
    name: *const c_char,
    name_bytes: usize,
    value: *const c_void,
    value_bytes: usize,
}

impl Native {
    fn read(list: &OwnedHeaders, index: usize) -> Option<Self> {
        let (mut name, mut value, mut value_bytes) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list lives throughout the call, which writes to the three places and nowhere else.
        let found = unsafe { rd_kafka_header_get_all(native(list), index, &mut name, &mut value, &mut value_bytes) };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return None;
        }
        // SAFETY: librdkafka ends every name with a zero byte.
        let name_bytes = unsafe { CStr::from_ptr(name) }.count_bytes();
        Some(Self { name, name_bytes, value, value_bytes })
    }

    fn bytes(&self) -> usize {
        self.name_bytes + self.value_bytes
    }

    fn add_to(&self, list: &OwnedHeaders) {
        // Names and values within the bound are far below the largest size.
        let size = |bytes: usize| isize::try_from(bytes).unwrap_or_default();
        // SAFETY: name and value are of the sizes given and belong to a list that lives; they are copied. The other list
        // is ours alone. Its error would be a list that is read-only, which a new one is not.
        let _ = unsafe {
            rd_kafka_header_add(
                native(list).cast_mut(),
                self.name,
                size(self.name_bytes),
                self.value,
                size(self.value_bytes),
            )
        };
    }
}

/// rdkafka's borrowed headers are librdkafka's under another type.
fn native(list: &OwnedHeaders) -> *const rd_kafka_headers_t {
    ptr::from_ref(list.as_borrowed()).cast()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::message::Header;

    use super::*;

    fn headers(list: &[(&str, Option<&[u8]>)]) -> Headers {
        let add = |list: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| list.insert(Header { key, value: *value });
        Headers(Some(Arc::new(list.iter().fold(OwnedHeaders::new(), add))))
    }

    fn names(list: &OwnedHeaders) -> Vec<String> {
        list.iter()
            .map(|header| format!("{}={}", header.key, header.value.map_or("null".into(), |v| v.len().to_string())))
            .collect()
    }

    #[test]
    fn headers_within_the_bounds_are_copied_whole() {
        let (copied, dropped) = copy(&headers(&[("a", Some(b"1")), ("a", None), ("b", Some(b""))]));
        assert_eq!((names(&copied), dropped), (vec!["a=1".to_owned(), "a=null".to_owned(), "b=0".to_owned()], 0));
        assert_eq!((copy(&Headers::default()).0.count(), copy(&Headers::default()).1), (0, 0));
    }

    #[test]
    fn a_header_that_does_not_fit_is_dropped_and_later_ones_that_do_are_kept() {
        let huge = vec![7; MOST_BYTES];
        let (copied, dropped) = copy(&headers(&[("a", Some(b"1")), ("huge", Some(&huge)), ("b", None)]));
        assert_eq!((names(&copied), dropped), (vec!["a=1".to_owned(), "b=null".to_owned()], 1));
    }

    #[test]
    fn so_many_headers_are_copied_and_no_more() {
        let many = vec![("h", Some(b"v".as_slice())); 10_000];
        let (copied, dropped) = copy(&headers(&many));
        assert_eq!((copied.count(), dropped), (MOST, 10_000 - MOST));
        let wide = vec![0; MOST_BYTES / 4 - 1];
        let (copied, dropped) = copy(&headers(&[("h", Some(wide.as_slice())); 6]));
        assert_eq!((copied.count(), dropped), (4, 2));
    }
}
