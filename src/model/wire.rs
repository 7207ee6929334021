//! The little of the protobuf wire format that is needed to look into an ONNX file before ONNX Runtime does.
//!
//! Owns bytes and fields, and knows nothing of ONNX. Reads as a stream: weights are stepped over, never held.
//! Whatever is not well-formed is an error; groups (long deprecated) are refused too.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// One field of a message: its number and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// A number stored in the field itself.
    Number { number: u64, value: u64 },
    /// Bytes that follow; the caller reads or skips exactly `length` of them.
    Bytes { number: u64, length: u64 },
}

/// A reader over one file, with the end of the message being read kept by the caller.
pub(super) struct Wire<R> {
    source: R,
    position: u64,
}

impl<R: BufRead + Seek> Wire<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, position: 0 }
    }

    /// The next field before `end`, or nothing when the message is over.
    pub(super) fn next_field(&mut self, end: u64) -> io::Result<Option<Field>> {
        if self.position == end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        let field = match tag & 7 {
            0 => Field::Number { number, value: self.varint()? },
            1 => Field::Number { number, value: self.fixed::<8>()? },
            2 => Field::Bytes { number, length: self.varint()? },
            5 => Field::Number { number, value: self.fixed::<4>()? },
            kind => return Err(malformed(format!("field {number} has the unknown kind {kind}"))),
        };
        let reaches = match field {
            Field::Bytes { length, .. } => self.position.checked_add(length),
            Field::Number { .. } => Some(self.position),
        };
        match reaches {
            Some(reached) if number > 0 && reached <= end => Ok(Some(field)),
            _ => Err(malformed(format!("field {number} reaches past the end of its message"))),
        }
    }

    /// The end of a message of `length` bytes that begins here.
    pub(super) fn end_of(&self, length: u64) -> u64 {
        self.position + length
    }

    /// A string field. Names and places are short: a longer one is not worth the memory.
    pub(super) fn text(&mut self, length: u64) -> io::Result<String> {
        const LONGEST: u64 = 64 * 1024;
        if length > LONGEST {
            return Err(malformed(format!("a name is {length} bytes long")));
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(malformed("the file ends within a name"));
        }
        self.position += length;
        String::from_utf8(bytes).map_err(|_| malformed("a name is not UTF-8"))
    }

    /// Steps over a field's bytes. A file that ends early is noticed by the next read.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<()> {
        let buffered = self.source.fill_buf()?.len() as u64;
        if length <= buffered {
            self.source.consume(length as usize);
        } else {
            let target = self.position + length;
            self.source.seek(SeekFrom::Start(target))?;
        }
        self.position += length;
        Ok(())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number is longer than ten bytes"))
    }

    fn fixed<const N: usize>(&mut self) -> io::Result<u64> {
        Ok(self.take::<N>()?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }
}

pub(super) fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn fields(bytes: &[u8]) -> io::Result<Vec<Field>> {
        let mut wire = Wire::new(Cursor::new(bytes));
        let mut found = Vec::new();
        while let Some(field) = wire.next_field(bytes.len() as u64)? {
            if let Field::Bytes { length, .. } = field {
                wire.skip(length)?;
            }
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn numbers_and_bytes_are_told_apart() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            fields(&bytes).unwrap(),
            [
                Field::Number { number: 1, value: 150 },
                Field::Bytes { number: 2, length: 2 },
                Field::Number { number: 3, value: 1 },
                Field::Number { number: 4, value: 2 },
            ]
        );
    }

    #[test]
    fn a_text_is_read_whole() {
        let mut wire = Wire::new(Cursor::new(&[0x12, 0x02, b'h', b'i'][..]));
        let Some(Field::Bytes { length, .. }) = wire.next_field(4).unwrap() else { panic!("no bytes") };
        assert_eq!(wire.text(length).unwrap(), "hi");
        assert_eq!(wire.next_field(4).unwrap(), None);
    }

    #[test]
    fn a_field_past_the_end_is_refused() {
        assert!(fields(&[0x12, 0x05, b'h', b'i']).is_err());
        assert!(fields(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }

    #[test]
    fn groups_endless_numbers_and_field_zero_are_refused() {
        assert!(fields(&[0x0b]).is_err());
        assert!(fields(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
        assert!(fields(&[0x00, 0x01]).is_err());
        assert!(fields(&[0x08]).is_err());
    }
}
