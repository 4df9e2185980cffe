//! The header of a sealed WAL object: who it is and how to prove it.
//!
//! A sealed object is one zstd *skippable frame* that holds this header, then the body:
//! ordinary zstd frames. `zstd -d` skips the header and yields the raw file, so an object can
//! be restored without wald (RFC 8878, section 3.1.2).
//!
//! Invariants: the header proves itself (a checksum of its own), the body (BLAKE3 and length
//! of the stored bytes), the raw file (BLAKE3 and length), and whose it is (system identifier
//! and file name: an object copied to another key is refused). So one flipped bit anywhere,
//! a truncation and a swap are all found, and the raw hash needs no decompression to compare.
//!
//! Layout, little-endian: magic `0x184D2A57` and content length (u32 each, the skippable
//! frame's), `WALD`, format version (u16), zero (u16), BLAKE3 of the raw bytes (32), BLAKE3 of
//! the body (32), raw length (u64), body length (u64), system identifier (u64), file name and
//! tool version (each a length byte and text), first 8 bytes of the BLAKE3 of all before.

use crate::system_id::SystemId;
use crate::wal_file::WalFile;

/// The version of the header that this wald writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;
/// No header is longer; reading this much of an object yields the whole header.
pub const HEADER_BYTES_MAX: usize = 1024;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A57;
const HEADER_MAGIC: [u8; 4] = *b"WALD";
const TEXT_BYTES_MAX: usize = 64;
const CHECK_BYTES: usize = 8;

/// What a sealed object says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The WAL file that is sealed.
    pub file: WalFile,
    /// The cluster that wrote it.
    pub system_id: SystemId,
    /// BLAKE3 of the file as PostgreSQL wrote it.
    pub raw_blake3: blake3::Hash,
    /// Its length in bytes.
    pub raw_bytes: u64,
    /// BLAKE3 of the stored bytes that follow the header.
    pub body_blake3: blake3::Hash,
    /// Their length.
    pub body_bytes: u64,
    /// The wald that sealed it, at most 64 bytes.
    pub tool_version: String,
}

/// Bytes that are not the header of a sealed object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Ends before the header does.
    #[error("the object ends inside its header, after {have_bytes} bytes")]
    Truncated {
        /// How many bytes there are.
        have_bytes: usize,
    },
    /// Not written by wald, or damaged at its very start.
    #[error("the object does not begin with wald's header")]
    NotSealed,
    /// Written by a newer wald.
    #[error(
        "the object has header format {found}; this wald reads up to {FORMAT_VERSION}: install a newer one"
    )]
    Newer {
        /// The version found.
        found: u16,
    },
    /// The header's own checksum does not match.
    #[error("the object's header is damaged: its checksum does not match")]
    Damaged,
    /// The checksum matches, yet a field makes no sense.
    #[error("the object's header is invalid: {what}")]
    Invalid {
        /// Which field.
        what: &'static str,
    },
    /// A text that is too long to be written.
    #[error("{what} is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong {
        /// Which field.
        what: &'static str,
    },
}

impl FrameHeader {
    /// The bytes to put before the body.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut content = Vec::with_capacity(256);
        content.extend_from_slice(&HEADER_MAGIC);
        content.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        content.extend_from_slice(&0u16.to_le_bytes());
        content.extend_from_slice(self.raw_blake3.as_bytes());
        content.extend_from_slice(self.body_blake3.as_bytes());
        content.extend_from_slice(&self.raw_bytes.to_le_bytes());
        content.extend_from_slice(&self.body_bytes.to_le_bytes());
        content.extend_from_slice(&self.system_id.get().to_le_bytes());
        put_text(&mut content, &self.file.to_string(), "the file name")?;
        put_text(&mut content, &self.tool_version, "the tool version")?;
        let length = u32::try_from(content.len() + CHECK_BYTES)
            .map_err(|_| FrameError::TooLong { what: "the header" })?;
        let mut bytes = Vec::with_capacity(content.len() + 16);
        bytes.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&content);
        let check = self_check(&bytes);
        bytes.extend_from_slice(&check);
        Ok(bytes)
    }

    /// Reads the header at the start of an object (its first [`HEADER_BYTES_MAX`] bytes or
    /// more); gives it and where the body begins.
    pub fn decode(object: &[u8]) -> Result<(Self, usize), FrameError> {
        let truncated = || FrameError::Truncated { have_bytes: object.len() };
        let mut reader = Reader { rest: object };
        if reader.u32().ok_or_else(truncated)? != SKIPPABLE_MAGIC {
            return Err(FrameError::NotSealed);
        }
        let length =
            usize::try_from(reader.u32().ok_or_else(truncated)?).map_err(|_| FrameError::NotSealed)?;
        if !(CHECK_BYTES..=HEADER_BYTES_MAX - 8).contains(&length) {
            return Err(FrameError::NotSealed);
        }
        let body_at = 8 + length;
        let checked = object.get(..body_at - CHECK_BYTES).ok_or_else(truncated)?;
        let check = object.get(body_at - CHECK_BYTES..body_at).ok_or_else(truncated)?;
        let mut reader = Reader { rest: checked.get(8..).unwrap_or_default() };
        if reader.array::<4>() != Some(HEADER_MAGIC) {
            return Err(FrameError::NotSealed);
        }
        if self_check(checked) != check {
            return Err(FrameError::Damaged);
        }
        let version = reader.u16().ok_or(FrameError::Damaged)?;
        if version > FORMAT_VERSION {
            return Err(FrameError::Newer { found: version });
        }
        let invalid = |what| FrameError::Invalid { what };
        reader.u16().ok_or(invalid("reserved field"))?;
        let raw_blake3 = blake3::Hash::from_bytes(reader.array().ok_or(invalid("raw hash"))?);
        let body_blake3 = blake3::Hash::from_bytes(reader.array().ok_or(invalid("body hash"))?);
        let raw_bytes = reader.u64().ok_or(invalid("raw length"))?;
        let body_bytes = reader.u64().ok_or(invalid("body length"))?;
        let system_id = reader.u64().and_then(SystemId::new).ok_or(invalid("system identifier"))?;
        let name = reader.text().ok_or(invalid("file name"))?;
        let file = WalFile::parse(name).map_err(|_| invalid("file name"))?;
        let tool_version = reader.text().ok_or(invalid("tool version"))?.to_owned();
        Ok((Self { file, system_id, raw_blake3, raw_bytes, body_blake3, body_bytes, tool_version }, body_at))
    }
}

fn self_check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn put_text(bytes: &mut Vec<u8>, text: &str, what: &'static str) -> Result<(), FrameError> {
    let length = u8::try_from(text.len())
        .ok()
        .filter(|length| usize::from(*length) <= TEXT_BYTES_MAX)
        .ok_or(FrameError::TooLong { what })?;
    bytes.push(length);
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Takes fields off the front of a slice; `None` where it is too short.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        let (text, rest) = self.rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> FrameHeader {
        FrameHeader {
            file: WalFile::parse("000000010000000000000042").unwrap(),
            system_id: SystemId::new(7_301_234_567_890_123_456).unwrap(),
            raw_blake3: blake3::hash(b"raw"),
            raw_bytes: 16 << 20,
            body_blake3: blake3::hash(b"body"),
            body_bytes: 4 << 20,
            tool_version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_header_fits_in_what_is_read_of_an_object() {
        let mut header = header();
        header.tool_version = "v".repeat(TEXT_BYTES_MAX);
        assert!(header.encode().unwrap().len() < HEADER_BYTES_MAX);
        header.tool_version.push('v');
        assert_eq!(header.encode(), Err(FrameError::TooLong { what: "the tool version" }));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let bytes = header().encode().unwrap();
        assert_eq!(FrameHeader::decode(&bytes).unwrap(), (header(), bytes.len()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(FrameHeader::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = header().encode().unwrap();
        bytes[12] = 2;
        let end = bytes.len() - CHECK_BYTES;
        let check = self_check(&bytes[..end]);
        bytes[end..].copy_from_slice(&check);
        assert_eq!(FrameHeader::decode(&bytes), Err(FrameError::Newer { found: 2 }));
    }

    proptest! {
        #[test]
        fn headers_round_trip(system_id in 1u64.., raw_bytes: u64, body_bytes: u64, tool_version in "\\PC{0,16}", body in prop::collection::vec(any::<u8>(), 0..64)) {
            let written = FrameHeader { system_id: SystemId::new(system_id).unwrap(), raw_bytes, body_bytes, tool_version, ..header() };
            let mut bytes = written.encode().unwrap();
            let length = bytes.len();
            bytes.extend_from_slice(&body);
            prop_assert_eq!(FrameHeader::decode(&bytes).unwrap(), (written, length));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0u32..2000) {
            let _ = FrameHeader::decode(&bytes);
            let framed = [&SKIPPABLE_MAGIC.to_le_bytes()[..], &length.to_le_bytes(), b"WALD", &bytes].concat();
            let _ = FrameHeader::decode(&framed);
        }
    }
}
