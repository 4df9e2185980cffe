//! A sealed object → proven raw bytes.
//!
//! The mirror of [`super::seal`]. Invariants: the stored bytes are proven before they reach
//! the decompressor, so no crafted or damaged frame does; the raw bytes are proven before the
//! caller is told that they are good; never more is written than the header announces, nor
//! more than the caller allows.

use std::io::{Read, Write};
use wald_core::frame::{FrameError, FrameHeader};
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;

/// What the object must be to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The file that was asked for.
    pub file: WalFile,
    /// The repository's cluster.
    pub system_id: SystemId,
    /// The most raw bytes that such a file can have: the segment size.
    pub raw_bytes_max: u64,
}

/// Why an object is not handed on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The header is missing, damaged or newer than this wald.
    #[error("{0}")]
    Header(FrameError),
    /// The object is a good one, but of another file.
    #[error("the object holds {found}, not {expected}: it was copied or renamed in the repository")]
    OtherFile {
        /// What was asked for.
        expected: WalFile,
        /// What the header names.
        found: WalFile,
    },
    /// The object is a good one, but of another cluster.
    #[error("the object belongs to system {found}, this repository to {expected}")]
    OtherSystem {
        /// The repository's.
        expected: SystemId,
        /// The header's.
        found: SystemId,
    },
    /// The file would be larger than it can be.
    #[error("the header announces {found} bytes, more than the {max} that the file can have")]
    TooLarge {
        /// What the header announces.
        found: u64,
        /// What is possible.
        max: u64,
    },
    /// The stored bytes end too early or go on too long.
    #[error("the object is truncated or padded: {found} bytes after its header, expected {expected}")]
    BodyLength {
        /// What the header announces.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The stored bytes are not the ones that were sealed.
    #[error("the stored bytes are damaged: BLAKE3 {found}, expected {expected}")]
    BodyHash {
        /// The header's.
        expected: blake3::Hash,
        /// The object's.
        found: blake3::Hash,
    },
    /// The decompressed bytes are not the ones that were sealed.
    #[error(
        "the content is damaged: BLAKE3 {found} over {found_bytes} bytes, expected {expected} over {expected_bytes}"
    )]
    RawHash {
        /// The header's.
        expected: blake3::Hash,
        /// What came out.
        found: blake3::Hash,
        /// The header's length.
        expected_bytes: u64,
        /// The length that came out.
        found_bytes: u64,
    },
    /// zstd can't decompress bytes whose hash is right.
    #[error("the object can't be decompressed: {0}")]
    Decompress(std::io::Error),
    /// The proven bytes can't be written where they belong: a local failure, not damage.
    #[error("can't write the file")]
    Write(#[source] std::io::Error),
}

impl OpenError {
    /// Whether the object itself is bad, rather than the local disk.
    pub fn is_damage(&self) -> bool {
        !matches!(self, OpenError::Write(_))
    }
}

/// Checks the header against what was asked for, and the stored bytes against the header.
/// Gives the header and the body's place in `object`.
pub fn prove_stored<'a>(object: &'a [u8], expected: &Expected) -> Result<(FrameHeader, &'a [u8]), OpenError> {
    let (header, body_at) = check_header(object, expected)?;
    let body = object.get(body_at..).unwrap_or_default();
    let found = u64::try_from(body.len()).unwrap_or(u64::MAX);
    check_body(&header, found, || blake3::hash(body))?;
    Ok((header, body))
}

/// The proof of an object's stored bytes, as they arrive.
pub struct StoredProof {
    header: FrameHeader,
    body: blake3::Hasher,
    bytes: u64,
}

impl StoredProof {
    /// With the object's first bytes: [`HEADER_BYTES_MAX`](wald_core::frame::HEADER_BYTES_MAX) or more, or all
    /// of it.
    pub fn begin(first: &[u8], expected: &Expected) -> Result<Self, OpenError> {
        let (header, body_at) = check_header(first, expected)?;
        let mut proof = Self { header, body: blake3::Hasher::new(), bytes: 0 };
        proof.add(first.get(body_at..).unwrap_or_default());
        Ok(proof)
    }

    /// With what comes next.
    pub fn add(&mut self, bytes: &[u8]) {
        self.body.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// The header, whose hash of the raw bytes may be believed only after this.
    pub fn finish(self) -> Result<FrameHeader, OpenError> {
        check_body(&self.header, self.bytes, || self.body.finalize())?;
        Ok(self.header)
    }
}

/// Reads the header at the start of an object and checks it against what was asked for. Gives it
/// and where the body begins.
pub(super) fn check_header(object: &[u8], expected: &Expected) -> Result<(FrameHeader, usize), OpenError> {
    let (header, body_at) = FrameHeader::decode(object).map_err(OpenError::Header)?;
    if header.file != expected.file {
        return Err(OpenError::OtherFile { expected: expected.file, found: header.file });
    }
    if header.system_id != expected.system_id {
        return Err(OpenError::OtherSystem { expected: expected.system_id, found: header.system_id });
    }
    if header.raw_bytes > expected.raw_bytes_max {
        return Err(OpenError::TooLarge { found: header.raw_bytes, max: expected.raw_bytes_max });
    }
    Ok((header, body_at))
}

/// Checks the stored bytes behind the header: their number first, which says more.
pub(super) fn check_body(
    header: &FrameHeader,
    found_bytes: u64,
    hash: impl FnOnce() -> blake3::Hash,
) -> Result<(), OpenError> {
    if found_bytes != header.body_bytes {
        return Err(OpenError::BodyLength { expected: header.body_bytes, found: found_bytes });
    }
    let found = hash();
    if found != header.body_blake3 {
        return Err(OpenError::BodyHash { expected: header.body_blake3, found });
    }
    Ok(())
}

/// Writes the raw bytes of `object` to `out`. Only after `Ok` may they be used.
pub fn open(object: &[u8], expected: &Expected, out: &mut impl Write) -> Result<FrameHeader, OpenError> {
    let (header, body) = prove_stored(object, expected)?;
    let mut raw = Raw::new(&header, out);
    let rest = frame_by_frame(body, &mut raw)?;
    if !rest.is_empty() {
        raw.read_from(zstd::stream::read::Decoder::with_buffer(rest).map_err(OpenError::Decompress)?)?;
    }
    raw.finish()?;
    Ok(header)
}

/// The largest frame that is decompressed into memory as a whole; those that [`super::seal`] makes are
/// smaller.
const FRAME_BYTES_MAX: u64 = 4 << 20;

/// Decompresses frame after frame, each at once and straight to where it is hashed and written from:
/// through a stream every byte is copied once more. Gives what is left from the first frame on that does
/// not say how large it is, or is larger than [`FRAME_BYTES_MAX`].
fn frame_by_frame<'a>(body: &'a [u8], raw: &mut Raw<'_, impl Write>) -> Result<&'a [u8], OpenError> {
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(OpenError::Decompress)?;
    let (mut rest, mut content) = (body, Vec::new());
    while let Some((frame, after, bytes)) = small_frame(rest) {
        content.clear();
        content.reserve(bytes);
        decompressor.decompress_to_buffer(frame, &mut content).map_err(OpenError::Decompress)?;
        if !raw.add(&content)? {
            return Ok(&[]);
        }
        rest = after;
    }
    Ok(rest)
}

/// The frame at the start of `body`, what follows it, and its length when decompressed.
fn small_frame(body: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let bytes = zstd::zstd_safe::get_frame_content_size(body).ok().flatten()?;
    let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX)?;
    let (frame, after) = body.split_at_checked(zstd::zstd_safe::find_frame_compressed_size(body).ok()?)?;
    Some((frame, after, bytes))
}

/// Raw bytes on their way: hashed and written, never more than the header announces.
pub(super) struct Raw<'a, W> {
    header: &'a FrameHeader,
    out: &'a mut W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<'a, W: Write> Raw<'a, W> {
    pub(super) fn new(header: &'a FrameHeader, out: &'a mut W) -> Self {
        Self { header, out, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    /// Takes what comes next; `false` if that is more than there can be: nothing of it is written.
    fn add(&mut self, bytes: &[u8]) -> Result<bool, OpenError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.bytes > self.header.raw_bytes {
            return Ok(false);
        }
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(OpenError::Write)?;
        Ok(true)
    }

    /// Takes all that `decoder` yields, as far as there is room for it.
    pub(super) fn read_from(&mut self, mut decoder: impl Read) -> Result<(), OpenError> {
        const STEP_BYTES: usize = 256 << 10;
        let mut step = vec![0; STEP_BYTES];
        loop {
            let count = decoder.read(&mut step).map_err(OpenError::Decompress)?;
            let Some(bytes) = step.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            if !self.add(bytes)? {
                return Ok(());
            }
        }
    }

    /// Proves what was taken.
    pub(super) fn finish(self) -> Result<(), OpenError> {
        let found = self.hasher.finalize();
        if self.bytes == self.header.raw_bytes && found == self.header.raw_blake3 {
            return Ok(());
        }
        Err(OpenError::RawHash {
            expected: self.header.raw_blake3,
            found,
            expected_bytes: self.header.raw_bytes,
            found_bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::{Effort, seal};
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "000000010000000000000042";

    fn expected() -> Expected {
        Expected {
            file: WalFile::parse(NAME).unwrap(),
            system_id: SystemId::new(7).unwrap(),
            raw_bytes_max: 1 << 20,
        }
    }

    fn sealed(raw: &[u8], effort: Effort) -> Vec<u8> {
        seal(expected().file, expected().system_id, raw, effort).unwrap().to_vec()
    }

    /// The proof of an object that arrives in small pieces.
    fn piecewise(object: &[u8]) -> Result<FrameHeader, OpenError> {
        let (first, rest) = object.split_at(object.len().min(wald_core::frame::HEADER_BYTES_MAX));
        let mut proof = StoredProof::begin(first, &expected())?;
        rest.chunks(3).for_each(|piece| proof.add(piece));
        proof.finish()
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let object = sealed(b"some WAL, some WAL, some WAL, some more WAL", Effort::Level(3));
        for bit in 0..object.len() * 8 {
            let mut damaged = object.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = open(&damaged, &expected(), &mut Vec::new()).unwrap_err();
            assert!(error.is_damage(), "bit {bit}: {error}");
            assert!(piecewise(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..object.len() {
            assert!(open(&object[..length], &expected(), &mut Vec::new()).is_err(), "{length} bytes");
            assert!(piecewise(&object[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(piecewise(&object).unwrap(), FrameHeader::decode(&object).unwrap().0);
        assert!(piecewise(&[object.as_slice(), b"x"].concat()).is_err());
        let padded = [object.as_slice(), b"x"].concat();
        assert!(matches!(open(&padded, &expected(), &mut Vec::new()), Err(OpenError::BodyLength { .. })));
    }

    #[test]
    fn an_object_under_another_name_or_of_another_system_is_refused() {
        let object = sealed(b"wal", Effort::Stored);
        let other = Expected { file: WalFile::parse("000000010000000000000043").unwrap(), ..expected() };
        assert!(matches!(open(&object, &other, &mut Vec::new()), Err(OpenError::OtherFile { .. })));
        let other = Expected { system_id: SystemId::new(8).unwrap(), ..expected() };
        assert!(matches!(open(&object, &other, &mut Vec::new()), Err(OpenError::OtherSystem { .. })));
    }

    #[test]
    fn a_body_that_decompresses_to_more_than_announced_is_refused() {
        let bomb = seal(expected().file, expected().system_id, &vec![0; 1 << 20], Effort::Level(3)).unwrap();
        let mut header = bomb.header.clone();
        header.raw_bytes = 10;
        let object = [header.encode().unwrap(), bomb.body.concat()].concat();
        let mut out = Vec::new();
        assert!(matches!(open(&object, &expected(), &mut out), Err(OpenError::RawHash { .. })));
        assert!(out.len() <= 10);
        header.raw_bytes = 2 << 20;
        let object = [header.encode().unwrap(), bomb.body.concat()].concat();
        assert!(matches!(open(&object, &expected(), &mut out), Err(OpenError::TooLarge { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_sealed_opens_and_is_plain_zstd(
            raw in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..2000),
                (any::<u8>(), 0usize..400_000).prop_map(|(byte, length)| vec![byte; length]),
            ],
            effort in prop_oneof![Just(Effort::Stored), (-5i32..=4).prop_map(Effort::Level)],
        ) {
            let object = sealed(&raw, effort);
            let mut out = Vec::new();
            let header = open(&object, &expected(), &mut out).unwrap();
            prop_assert_eq!(&out, &raw);
            prop_assert_eq!(header.raw_blake3, blake3::hash(&raw));
            prop_assert_eq!(zstd::stream::decode_all(object.as_slice()).unwrap(), raw);
        }

        #[test]
        fn any_bytes_open_or_fail_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = open(&bytes, &expected(), &mut Vec::new());
        }
    }
}
