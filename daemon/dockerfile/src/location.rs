use std::fmt;
use std::ops::RangeInclusive;

/// The lines of a Dockerfile that something was written on: 1-based, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// First line.
    pub start: u32,
    /// Last line, never before `start`.
    pub end: u32,
}

impl Location {
    /// The lines from `start` to `end`; an `end` before `start` names one line.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start) }
    }

    /// A single line.
    pub fn line(number: u32) -> Self {
        Self::new(number, number)
    }

    /// Every line number covered.
    pub fn lines(self) -> RangeInclusive<u32> {
        self.start..=self.end
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}
