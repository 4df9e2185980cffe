//! A sealed object that arrives piece by piece → raw bytes, proven at the end.
//!
//! For verification, which writes nothing down: unlike [`super::open`] the decompressor sees bytes before
//! they are proven, so that no segment, of up to 1 GiB, has to stand in memory. All errors are the
//! same, in the same order: what is wrong with the stored bytes is told before what comes of it.

use super::open::{Expected, OpenError, Raw, check_body, check_header};
use std::io::{self, Read, Write};
use wald_core::frame::{FrameHeader, HEADER_BYTES_MAX};

/// Reads `object` to its end and writes its raw bytes to `out`, which may be believed only after `Ok`.
pub fn open_stream(
    object: &mut impl Read,
    expected: &Expected,
    out: &mut impl Write,
) -> Result<FrameHeader, OpenError> {
    let mut start = Vec::with_capacity(HEADER_BYTES_MAX);
    let header_bytes = u64::try_from(HEADER_BYTES_MAX).unwrap_or(u64::MAX);
    object.by_ref().take(header_bytes).read_to_end(&mut start).map_err(OpenError::Decompress)?;
    let (header, body_at) = check_header(&start, expected)?;
    let rest = start.get(body_at..).unwrap_or_default();
    let mut body = Body { source: rest.chain(object), hasher: blake3::Hasher::new(), bytes: 0 };
    let written = match zstd::stream::read::Decoder::new(&mut body) {
        Ok(decoder) => {
            let mut raw = Raw::new(&header, out);
            raw.read_from(decoder).and_then(|()| raw.finish())
        }
        Err(error) => Err(OpenError::Decompress(error)),
    };
    if let Err(OpenError::Write(_)) = written {
        return written.map(|()| header);
    }
    // Through the end, wherever the decompressor stopped.
    io::copy(&mut body, &mut io::sink()).map_err(OpenError::Decompress)?;
    check_body(&header, body.bytes, || body.hasher.finalize())?;
    written.map(|()| header)
}

/// What follows the header, hashed as it passes.
struct Body<R> {
    source: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::open;
    use super::super::seal::{Effort, seal};
    use super::*;
    use proptest::prelude::*;
    use wald_core::system_id::SystemId;
    use wald_core::wal_file::WalFile;

    fn expected() -> Expected {
        Expected {
            file: WalFile::parse("000000010000000000000042").unwrap(),
            system_id: SystemId::new(7).unwrap(),
            raw_bytes_max: 1 << 20,
        }
    }

    fn sealed(raw: &[u8], effort: Effort) -> Vec<u8> {
        seal(expected().file, expected().system_id, raw, effort).unwrap().to_vec()
    }

    /// Both ways to open an object say the same of it.
    fn same(object: &[u8]) -> Result<FrameHeader, String> {
        let (mut whole, mut streamed) = (Vec::new(), Vec::new());
        let at_once = open(object, &expected(), &mut whole).map_err(|error| error.to_string());
        let in_pieces =
            open_stream(&mut &object[..], &expected(), &mut streamed).map_err(|error| error.to_string());
        assert_eq!(at_once, in_pieces);
        if at_once.is_ok() {
            assert_eq!(whole, streamed);
        }
        at_once
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused_as_it_is_at_once() {
        let raw: Vec<u8> = (0..3000u32).map(|n| u8::try_from(n % 7).unwrap()).collect();
        let object = sealed(&raw, Effort::Level(3));
        same(&object).unwrap();
        for bit in 0..object.len() * 8 {
            let mut damaged = object.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            same(&damaged).unwrap_err();
        }
        for length in 0..object.len() {
            same(&object[..length]).unwrap_err();
        }
        same(&[object, vec![0]].concat()).unwrap_err();
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_is_opened(raw in proptest::collection::vec(any::<u8>(), 0..5000), stored: bool) {
            let effort = if stored { Effort::Stored } else { Effort::Level(1) };
            prop_assert!(same(&sealed(&raw, effort)).is_ok());
        }
    }
}
