//! Headers found and taken away by name without decoding the others: a header's name need not be UTF-8, and rdkafka's
//! own way of reading panics at such a one.

#![expect(unsafe_code, reason = "rdkafka has no safe call that leaves the names of other headers alone")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use rdkafka::bindings::{self, rd_kafka_headers_t, rd_kafka_resp_err_t};
use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};

use crate::receipt::Headers;

const FOUND: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// The verdict that a flagged post carries, whatever it holds.
pub fn verdict_header(headers: &Headers) -> Option<&[u8]> {
    let native = headers.0.as_ref()?.downcast_ref::<OwnedHeaders>()?;
    last(native.as_borrowed(), c"moderato.verdict")
}

/// The headers of a flagged post that has not been through Kafka.
pub fn with_verdict(verdict: &[u8]) -> Headers {
    let header = Header { key: "moderato.verdict", value: Some(verdict) };
    Headers(Some(Arc::new(OwnedHeaders::new().insert(header))))
}

/// The value of the last header of that name: ours stand behind those that came with the post, so that no producer can
/// speak for us. `None` for a null value too.
pub(super) fn last<'a>(headers: &'a BorrowedHeaders, name: &CStr) -> Option<&'a [u8]> {
    let (mut value, mut size) = (ptr::null::<c_void>(), 0_usize);
    // SAFETY: the list lives as long as the borrow, `name` ends in NUL, and both results are ours to write to.
    let found = unsafe { bindings::rd_kafka_header_get_last(native(headers), name.as_ptr(), &mut value, &mut size) };
    if found != FOUND || value.is_null() {
        return None;
    }
    // SAFETY: the value has that many bytes and belongs to the list, which is borrowed for as long.
    Some(unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) })
}

/// The headers whose name and value are text; of several of one name the last.
pub(super) fn texts(headers: &BorrowedHeaders) -> BTreeMap<String, String> {
    let text = |name: CString| {
        let value = std::str::from_utf8(last(headers, &name)?).ok()?.to_owned();
        Some((name.into_string().ok()?, value))
    };
    names(headers).filter_map(text).collect()
}

/// The headers without those whose names are unwanted; the others stay as they are, in their order.
pub(super) fn without(headers: OwnedHeaders, unwanted: impl Fn(&[u8]) -> bool) -> OwnedHeaders {
    let list = native(headers.as_borrowed()).cast_mut();
    let unwanted = names(headers.as_borrowed()).filter(|name| unwanted(name.to_bytes()));
    for name in unwanted.collect::<Vec<_>>() {
        // SAFETY: the list is owned, nothing borrows from it here, and `name` is a copy that ends in NUL.
        unsafe { bindings::rd_kafka_header_remove(list, name.as_ptr()) };
    }
    headers
}

/// Copies of the names, as bytes.
fn names(headers: &BorrowedHeaders) -> impl Iterator<Item = CString> + '_ {
    let mut index = 0;
    std::iter::from_fn(move || {
        let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0_usize);
        // SAFETY: the list lives as long as the borrow, and all three results are ours to write to.
        let found =
            unsafe { bindings::rd_kafka_header_get_all(native(headers), index, &mut name, &mut value, &mut size) };
        if found != FOUND || name.is_null() {
            return None;
        }
        index += 1;
        // SAFETY: librdkafka ends every name with NUL; the copy is taken before the list can change.
        Some(unsafe { CStr::from_ptr(name) }.to_owned())
    })
}

/// rdkafka hands out its list of headers as a reference that stands for the address.
fn native(headers: &BorrowedHeaders) -> *const rd_kafka_headers_t {
    ptr::from_ref(headers).cast()
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, Headers as _};

    use super::*;

    fn headers(all: &[(&str, Option<&[u8]>)]) -> OwnedHeaders {
        all.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }))
    }

    #[test]
    fn the_last_header_of_a_name_counts() {
        let headers = headers(&[("a", Some(b"first")), ("b", None), ("a", Some(b"second"))]);
        assert_eq!(last(headers.as_borrowed(), c"a"), Some(b"second".as_slice()));
        assert_eq!(last(headers.as_borrowed(), c"b"), None);
        assert_eq!(last(headers.as_borrowed(), c"c"), None);
    }

    #[test]
    fn headers_go_by_their_name_and_the_others_keep_their_order() {
        let all = headers(&[("x.1", Some(b"1")), ("keep", Some(b"2")), ("x.1", None), ("y", None), ("keep", None)]);
        let left = without(all, |name| name.starts_with(b"x.") || name == b"y");
        let left: Vec<_> =
            left.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
        assert_eq!(left, [("keep".to_owned(), Some(b"2".to_vec())), ("keep".to_owned(), None)]);
    }
}
