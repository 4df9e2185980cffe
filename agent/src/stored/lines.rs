//! A compressed object that is text in lines.

use std::io::{self, BufRead, BufReader, Read};

/// Decompresses `object` and gives each line, with its line feed, to `take`. A line longer than
/// `line_bytes_max` is cut there, so that whoever parses it refuses it.
pub fn read_lines<E: From<io::Error>>(
    object: impl Read,
    line_bytes_max: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = BufReader::new(zstd::stream::read::Decoder::new(object)?);
    let mut line = Vec::new();
    let limit = u64::try_from(line_bytes_max).unwrap_or(u64::MAX);
    while (&mut lines).take(limit).read_until(b'\n', &mut line)? > 0 {
        take(&line)?;
        line.clear();
    }
    Ok(())
}
