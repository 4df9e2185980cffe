//! Two sealed objects → whether they hold the same file.
//!
//! Invariant: both are proven whole, down to their raw bytes; what can't be proven is not the same
//! as anything. The level, the zstd and the wald that sealed them may differ.

use super::Codec;
use super::open::{Expected, open};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};

/// A judge of two objects that should be `expected`, for whoever knows bytes only.
pub fn judge(
    codec: &Codec,
    expected: Expected,
) -> impl Fn(Bytes, Bytes) -> BoxFuture<'static, bool> + Send + Sync + 'static {
    let codec = codec.clone();
    move |one, other| {
        let codec = codec.clone();
        async move { codec.run(move || is_same(&one, &other, &expected)).await.unwrap_or(false) }.boxed()
    }
}

fn is_same(one: &[u8], other: &[u8], expected: &Expected) -> bool {
    let proven = |object| open(object, expected, &mut std::io::sink());
    matches!((proven(one), proven(other)), (Ok(one), Ok(other)) if one.raw_blake3 == other.raw_blake3)
}

#[cfg(test)]
mod tests {
    use super::super::seal::{Effort, seal};
    use super::*;
    use wald_core::system_id::SystemId;
    use wald_core::wal_file::WalFile;

    fn expected() -> Expected {
        let file = WalFile::parse("000000010000000000000042").unwrap();
        Expected { file, system_id: SystemId::new(7).unwrap(), raw_bytes_max: 1 << 20 }
    }

    fn sealed(raw: &[u8], effort: Effort) -> Vec<u8> {
        seal(expected().file, expected().system_id, raw, effort).unwrap().to_vec()
    }

    #[test]
    fn the_same_file_sealed_in_two_ways_is_the_same_and_damage_is_not() {
        let raw = b"some WAL, some WAL, some WAL, some more WAL";
        let (one, other) = (sealed(raw, Effort::Level(3)), sealed(raw, Effort::Stored));
        assert_ne!(one, other);
        assert!(is_same(&one, &other, &expected()));
        assert!(!is_same(&one, &sealed(b"other WAL", Effort::Stored), &expected()));
        let mut damaged = other.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!is_same(&one, &damaged, &expected()) && !is_same(&damaged, &damaged, &expected()));
    }
}
