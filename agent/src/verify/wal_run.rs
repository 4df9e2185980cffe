//! Proves consecutive WAL segments of a timeline: each object's bytes, and the records in them one
//! after the other.
//!
//! A record may begin in one segment and end in another. Before a run stands what was known at the end of the segment
//! before it (from the last ledger), or else that segment itself is read first; behind a run the next segments are read on until
//! the last record is whole. So every record that touches a segment of the run is proven, whichever
//! lane has its neighbours.

use super::event::Event;
use super::lanes::{GivenUp, Shared};
use crate::codec::open::{Expected, OpenError};
use crate::codec::open_stream::open_stream;
use std::collections::BTreeMap;
use std::io::{self, Write};
use wald_core::ledger::{Damage, Depth};
use wald_core::lsn::Lsn;
use wald_core::object_key::ObjectKey;
use wald_core::segment::SegmentName;
use wald_core::wal_file::WalFile;
use wald_core::wal_page::{LongPageHeader, check_segment};
use wald_core::wal_record::{Carry, Ending, OpenSegment, RecordFinding, RecordWalker, SegmentWalk};

/// Findings of one segment that are put into words; the rest is counted.
const PROBLEMS_TOLD: usize = 5;

/// Segments to prove, in order.
#[derive(Debug)]
pub(super) struct WalRun {
    /// The state of a walk behind the segment before the first.
    pub carry: Option<Carry>,
    /// That segment, if it is stored and has to be read for lack of a state.
    pub lead_in: Option<SegmentName>,
    /// What is to be proven: consecutive segments of a timeline.
    pub segments: Vec<SegmentName>,
    /// The number of the last segment that is stored without a gap behind them.
    pub tail_until: u64,
    /// Whether the state at the end is to be kept.
    pub keep_end: bool,
}

/// What reading one segment gave.
struct Opened {
    sealed: Result<(), String>,
    walk: Option<SegmentWalk>,
    raw_bytes: u64,
}

/// What a run has seen so far.
struct Seen {
    walker: RecordWalker,
    /// The file of each segment that was walked: behind a switch the one before has another timeline.
    files: BTreeMap<u64, SegmentName>,
    /// Segments of the run that touch a record of which the end was not seen yet.
    open: Vec<ObjectKey>,
}

impl Shared {
    pub(super) fn wal_run(&self, run: WalRun) -> Result<(), GivenUp> {
        let identity = self.repository.identity();
        let (system_id, size) = (identity.system_id(), identity.segment_size());
        let before = run.carry.as_ref().map(Carry::segment).or(run.lead_in);
        let files = before.into_iter().filter_map(|file| Some((file.number(size)?, file))).collect();
        let walker = match run.carry {
            Some(carry) => RecordWalker::resume(system_id, size, carry),
            None => RecordWalker::new(system_id, size),
        };
        let mut seen = Seen { walker, files, open: Vec::new() };
        if let Some(before) = run.lead_in.filter(|_| self.depth >= Depth::Records) {
            // What its records are like, the run tells that it belongs to.
            self.open_segment(before, &mut seen.walker)?;
        }
        let mut open_record = None;
        for segment in &run.segments {
            open_record = self.prove_segment(*segment, &mut seen)?;
        }
        if run.keep_end
            && let (Some(last), Some(carry)) = (run.segments.last(), seen.walker.carry())
            && let Ok(carry) = serde_json::to_value(&carry)
        {
            let object = ObjectKey::wal(WalFile::Segment(*last)).as_str().into();
            self.tell(Event::Walked { object, carry });
        }
        let mut next = run.segments.last().and_then(|last| last.next(size));
        while let (Some(record), Some(segment)) = (open_record, next) {
            if segment.number(size).is_none_or(|number| number > run.tail_until) {
                break;
            }
            open_record = self.finish_record(record, segment, &mut seen)?;
            next = segment.next(size);
        }
        // A record of which the end was not seen is proven by nothing.
        self.settle(&mut seen, Depth::Content);
        Ok(())
    }

    /// Tells how thoroughly the segments are proven that waited for the end of a record.
    fn settle(&self, seen: &mut Seen, depth: Depth) {
        seen.open.drain(..).for_each(|key| self.proven(&key, depth.min(self.depth)));
    }

    /// Reads and judges one segment; gives the record that goes on behind it.
    fn prove_segment(&self, segment: SegmentName, seen: &mut Seen) -> Result<Option<Lsn>, GivenUp> {
        let key = ObjectKey::wal(WalFile::Segment(segment));
        let opened = self.open_segment(segment, &mut seen.walker)?;
        let Some(Opened { sealed: Ok(()), walk, raw_bytes }) = opened else {
            self.settle(seen, Depth::Content);
            return Ok(None);
        };
        self.tell(Event::Unpacked { raw_bytes });
        let Some(walk) = walk else {
            self.proven(&key, self.depth);
            return Ok(None);
        };
        self.note(segment, &walk, seen);
        self.tell_findings(segment, &walk, seen, |_| true);
        match walk.open {
            Some(_) => seen.open.push(key),
            None if walk.findings.is_empty() => self.proven(&key, self.depth),
            None => self.proven(&key, Depth::Content),
        }
        Ok(walk.open)
    }

    /// Notes what the walk through a segment says of those before it.
    fn note(&self, segment: SegmentName, walk: &SegmentWalk, seen: &mut Seen) {
        let size = self.repository.segment_size();
        seen.files.extend(segment.number(size).map(|number| (number, segment)));
        let begins_before = |lsn: &Lsn| segment.start(size).is_some_and(|start| *lsn < start);
        if walk.findings.iter().any(|finding| begins_before(&finding.at)) {
            self.settle(seen, Depth::Content);
        } else if !walk.open.as_ref().is_some_and(begins_before) {
            self.settle(seen, Depth::Records);
        }
    }

    /// Reads a segment behind the run for the sake of the record that goes on in it.
    fn finish_record(
        &self,
        record: Lsn,
        segment: SegmentName,
        seen: &mut Seen,
    ) -> Result<Option<Lsn>, GivenUp> {
        let opened = self.open_segment(segment, &mut seen.walker)?;
        let Some(Opened { sealed: Ok(()), walk: Some(walk), .. }) = opened else { return Ok(None) };
        self.note(segment, &walk, seen);
        // What begins in this segment is told by the run that it belongs to.
        self.tell_findings(segment, &walk, seen, |finding| finding.at <= record);
        Ok(walk.open.filter(|open| *open == record))
    }

    /// A damaged record belongs to the segment in which it begins: recovery stops there.
    fn tell_findings(
        &self,
        walked: SegmentName,
        walk: &SegmentWalk,
        seen: &Seen,
        ours: impl Fn(&RecordFinding) -> bool,
    ) {
        let size = u64::from(self.repository.segment_size().bytes());
        let mut by_file: BTreeMap<SegmentName, Vec<&RecordFinding>> = BTreeMap::new();
        for finding in walk.findings.iter().filter(|finding| ours(finding)) {
            // One that was not walked may be stored under any name or none: then it counts where it was seen.
            let file = seen.files.get(&(finding.at.get() / size)).copied().unwrap_or(walked);
            by_file.entry(file).or_default().push(finding);
        }
        for (file, findings) in by_file {
            let left_out = if file == walked { walk.findings_left_out } else { 0 };
            let problems = findings.iter().take(PROBLEMS_TOLD).map(ToString::to_string).collect();
            let count = u64::try_from(findings.len()).unwrap_or(u64::MAX).saturating_add(left_out);
            self.found(&ObjectKey::wal(WalFile::Segment(file)), Damage::Records { problems, count });
        }
    }

    /// Reads a segment, walking it on the way if records are asked for. `None`: it could not be
    /// read. After that, or after damage, the walk starts anew. Damage is told here, whichever run the segment
    /// belongs to: what was seen is not kept back.
    fn open_segment(
        &self,
        segment: SegmentName,
        walker: &mut RecordWalker,
    ) -> Result<Option<Opened>, GivenUp> {
        let identity = self.repository.identity();
        let (system_id, size) = (identity.system_id(), identity.segment_size());
        let anew = |carry: Option<Carry>| match carry {
            Some(carry) => RecordWalker::resume(system_id, size, carry),
            None => RecordWalker::new(system_id, size),
        };
        let before = walker.carry();
        let read = self.read(&ObjectKey::wal(WalFile::Segment(segment)), |object| {
            // A second attempt begins where the first one did.
            *walker = anew(before.clone());
            let walk = (self.depth >= Depth::Records).then(|| walker.begin(segment, Ending::WithSegment));
            let mut sink = Sink { first: Vec::new(), raw_bytes: 0, walk };
            let sealed = self.check_sealed(WalFile::Segment(segment), object, &mut sink);
            let Sink { walk, raw_bytes, .. } = sink;
            Opened { sealed, walk: walk.map(OpenSegment::finish), raw_bytes }
        })?;
        let opened = read.map(|whole| whole.value);
        if opened.as_ref().is_none_or(|opened| opened.sealed.is_err()) {
            *walker = anew(None);
        }
        if let Some(Opened { sealed: Err(problem), .. }) = &opened {
            let key = ObjectKey::wal(WalFile::Segment(segment));
            self.found(&key, Damage::Content { problem: problem.clone() });
        }
        Ok(opened)
    }

    /// The object against its own header, its name, and the first page of what is in it.
    fn check_sealed(
        &self,
        file: WalFile,
        object: &mut impl io::Read,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        let identity = self.repository.identity();
        let (system_id, size) = (identity.system_id(), identity.segment_size());
        let raw_bytes = u64::from(size.bytes());
        let expected = Expected { file, system_id, raw_bytes_max: raw_bytes };
        open_stream(object, &expected, sink).map_err(|error| match error {
            OpenError::Write(source) => source.to_string(),
            error => crate::explain::chain(&error),
        })?;
        if sink.raw_bytes != raw_bytes {
            return Err(format!("it holds {} bytes, a segment has {raw_bytes}", sink.raw_bytes));
        }
        let Some(segment) = file.segment() else { return Ok(()) };
        check_segment(&sink.first, segment, system_id, size).map(|_| ()).map_err(|error| error.to_string())
    }

    /// The first part of a segment: like a segment, but its log may end anywhere.
    pub(super) fn partial(&self, file: WalFile) -> Result<(), GivenUp> {
        let key = ObjectKey::wal(file);
        let Some(segment) = file.segment() else { return Ok(()) };
        let identity = self.repository.identity();
        let (system_id, size) = (identity.system_id(), identity.segment_size());
        let start = segment.start(size).unwrap_or(Lsn::MIN);
        let read = self.read(&key, |object| {
            let mut walker = RecordWalker::new(system_id, size);
            let walk =
                (self.depth >= Depth::Records).then(|| walker.begin(segment, Ending::AtOrAfter(start)));
            let mut sink = Sink { first: Vec::new(), raw_bytes: 0, walk };
            let sealed = self.check_sealed(file, object, &mut sink);
            let Sink { walk, raw_bytes, .. } = sink;
            Opened { sealed, walk: walk.map(OpenSegment::finish), raw_bytes }
        })?;
        let Some(Opened { sealed, walk, raw_bytes }) = read.map(|whole| whole.value) else { return Ok(()) };
        if let Err(problem) = sealed {
            self.found(&key, Damage::Content { problem });
            return Ok(());
        }
        self.tell(Event::Unpacked { raw_bytes });
        self.proven(&key, self.depth);
        if let Some(walk) = walk.filter(|walk| !walk.findings.is_empty()) {
            let problems = walk.findings.iter().take(PROBLEMS_TOLD).map(ToString::to_string).collect();
            let count = u64::try_from(walk.findings.len()).unwrap_or(u64::MAX);
            self.found(&key, Damage::Records { problems, count });
        }
        Ok(())
    }
}

/// Takes the raw bytes of a segment.
struct Sink<'a> {
    /// As much as the header of the first page has.
    first: Vec<u8>,
    raw_bytes: u64,
    walk: Option<OpenSegment<'a>>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let missing = LongPageHeader::BYTES.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(missing));
        self.raw_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(walk) = &mut self.walk {
            walk.feed(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
