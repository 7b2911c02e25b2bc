//! Sparse files: which parts of a file the archive has content for.

use super::pax::decimal;

/// More parts than this are no file system's layout but an attack on memory.
const MAX_SEGMENTS: usize = 1 << 20;

/// The layout of a sparse file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sparse {
    /// Offset and length of each part that has content, ascending, not overlapping.
    pub(crate) segments: Vec<(u64, u64)>,
    /// The whole file's size.
    pub(crate) size: u64,
}

impl Sparse {
    /// Appends a part; `None` if it is not behind the others.
    pub(super) fn push(&mut self, offset: u64, length: u64) -> Option<()> {
        let end = offset.checked_add(length)?;
        let after = self.segments.last().is_none_or(|&(start, length)| start + length <= offset);
        if !after || end > i64::MAX as u64 || self.segments.len() >= MAX_SEGMENTS {
            return None;
        }
        if length > 0 {
            self.segments.push((offset, length));
        }
        Some(())
    }

    /// Checks the layout against the amount of content that the archive has.
    pub(super) fn checked(self, content: u64) -> Option<Self> {
        let sum: u64 = self.segments.iter().map(|&(_, length)| length).sum();
        let end = self.segments.last().map_or(0, |&(offset, length)| offset + length);
        (sum == content && end <= self.size && i64::try_from(self.size).is_ok()).then_some(self)
    }
}

/// Reads the numbers of GNU's formats 0.1 (`,` between them) from a PAX record.
pub(super) fn parse_list(text: &[u8]) -> Option<Sparse> {
    let mut sparse = Sparse::default();
    let numbers: Vec<u64> = text.split(|&byte| byte == b',').map(decimal).collect::<Option<_>>()?;
    let (pairs, []) = numbers.as_chunks::<2>() else { return None };
    for &[offset, length] in pairs {
        sparse.push(offset, length)?;
    }
    Some(sparse)
}

/// The map at the start of the content in GNU's format 1.0: decimal lines, the first being the
/// number of pairs that follow, padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    numbers: Vec<u64>,
    /// The line that is not complete yet.
    line: Vec<u8>,
}

impl MapReader {
    /// Takes one block; returns the layout once it is complete.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Option<Sparse>, Malformed> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err(Malformed);
                }
                continue;
            }
            self.numbers.push(decimal(&self.line).ok_or(Malformed)?);
            self.line.clear();
            let count = usize::try_from(self.numbers[0]).map_err(|_| Malformed)?;
            if count > MAX_SEGMENTS {
                return Err(Malformed);
            }
            if self.numbers.len() == 1 + 2 * count {
                let mut sparse = Sparse::default();
                for &[offset, length] in self.numbers[1..].as_chunks::<2>().0 {
                    sparse.push(offset, length).ok_or(Malformed)?;
                }
                return Ok(Some(sparse));
            }
        }
        Ok(None)
    }
}

/// A map is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_must_be_pairs_in_ascending_order() {
        assert_eq!(parse_list(b"0,5,10,5").unwrap().segments, [(0, 5), (10, 5)]);
        for text in ["", "1", "0,5,3,5", "0,5,10", "a,b", "0,18446744073709551615", "9,-1"] {
            assert_eq!(parse_list(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_layout_must_agree_with_the_content() {
        let layout = |size| Sparse { segments: vec![(0, 5), (10, 5)], size };
        assert!(layout(15).checked(10).is_some());
        assert!(layout(14).checked(10).is_none());
        assert!(layout(15).checked(11).is_none());
        assert!(layout(u64::MAX).checked(10).is_none());
    }

    #[test]
    fn a_map_may_end_in_a_later_block() {
        let mut map = MapReader::default();
        assert_eq!(map.block(b"2\n0\n"), Ok(None));
        assert_eq!(map.block(b"5\n1"), Ok(None));
        let sparse = map.block(b"0\n5\n\0\0").unwrap().unwrap();
        assert_eq!(sparse.segments, [(0, 5), (10, 5)]);
        assert_eq!(MapReader::default().block(b"99999999999\n"), Err(Malformed));
        assert_eq!(MapReader::default().block(&[b'1'; 512]), Err(Malformed));
    }
}
