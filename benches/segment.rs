//! One segment of 16 MiB: sealed, proven, opened, walked; and the arithmetic of names.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wald::codec::open::{Expected, open, prove_stored};
use wald::codec::seal::{Effort, seal};
use wald_benches::{recorded, wal_like};
use wald_core::segment::{SegmentName, SegmentSize};
use wald_core::system_id::SystemId;
use wald_core::wal_file::WalFile;
use wald_core::wal_record::{Ending, RecordWalker};

const SEGMENT_BYTES: usize = 16 << 20;

fn sealing(c: &mut Criterion) {
    let (Ok(file), Some(system_id)) = (WalFile::parse("000000010000000000000042"), SystemId::new(7)) else {
        return;
    };
    let raw = wal_like(SEGMENT_BYTES);
    let expected = Expected { file, system_id, raw_bytes_max: raw.len() as u64 };
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Bytes(raw.len() as u64)).sample_size(20);
    for (name, effort) in
        [("stored", Effort::Stored), ("zstd 1", Effort::Level(1)), ("zstd 3", Effort::Level(3))]
    {
        group.bench_function(format!("seal {name}"), |b| {
            b.iter_batched(
                || (),
                |()| seal(file, system_id, black_box(&raw), effort),
                BatchSize::PerIteration,
            );
        });
    }
    if let Ok(sealed) = seal(file, system_id, &raw, Effort::Level(3)) {
        let object = sealed.to_vec();
        group.bench_function("prove stored", |b| {
            b.iter(|| prove_stored(black_box(&object), &expected).is_ok())
        });
        group.bench_function("open", |b| {
            b.iter(|| open(black_box(&object), &expected, &mut std::io::sink()).is_ok())
        });
    }
    group.finish();
}

fn walking(c: &mut Criterion) {
    let (Ok(name), Some(system_id)) = (SegmentName::parse("000000010000000000000001"), SystemId::new(7))
    else {
        return;
    };
    let wal = recorded(SegmentSize::DEFAULT.bytes());
    let walk = || {
        let mut walker = RecordWalker::new(system_id, SegmentSize::DEFAULT);
        walker.segment(name, Ending::WithSegment, black_box(&wal))
    };
    let found = walk();
    // Damage is walked over faster: no figure at all is better than that one.
    if !found.findings.is_empty() {
        eprintln!("the segment to walk is not sound: {found:?}");
        return;
    }
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Bytes(wal.len() as u64)).sample_size(20);
    group.bench_function(format!("walk records ({} of them)", found.records), |b| b.iter(walk));
    group.finish();
}

fn names(c: &mut Criterion) {
    let Ok(name) = SegmentName::parse("0000000100000000000000FF") else { return };
    c.bench_function("next name", |b| b.iter(|| black_box(name).next(SegmentSize::DEFAULT)));
    c.bench_function("parse name", |b| {
        b.iter(|| SegmentName::parse(black_box("0000000100000000000000FF")).is_ok())
    });
}

criterion_group!(benches, sealing, walking, names);
criterion_main!(benches);
