//! One directory of a stack, merged from the layers that have a part of it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::layer::OverlayMarks;
use crate::metadata::{FileKind, Metadata};

/// A layer's directory at one path.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The layer's position in the stack.
    pub(crate) layer: usize,
    pub(crate) dir: Arc<Dir>,
    /// `None` for a plain tree, in which nothing is a mark.
    pub(crate) marks: Option<OverlayMarks>,
}

impl Part {
    fn hides(&self, metadata: &Metadata) -> bool {
        self.marks.is_some() && metadata.is_whiteout()
    }
}

/// The parts that make up a directory, topmost first.
#[derive(Debug, Clone, Default)]
pub(crate) struct MergedDir {
    pub(crate) parts: Vec<Part>,
}

/// A name of a merged directory, with the part it comes from.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: OsString,
    pub(crate) part: usize,
}

impl MergedDir {
    /// The part that shows a name, and what is known about it there.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Option<(&Part, Metadata)>> {
        for part in &self.parts {
            if let Some(metadata) = part.dir.stat(name)? {
                return Ok((!part.hides(&metadata)).then_some((part, metadata)));
            }
        }
        Ok(None)
    }

    /// The directory that a name shows; `None` if it shows none.
    pub(crate) fn enter(&self, name: &OsStr) -> io::Result<Option<Self>> {
        let mut parts = Vec::new();
        for (position, part) in self.parts.iter().enumerate() {
            let dir = match part.dir.dir(name) {
                Ok(dir) => Arc::new(dir),
                Err(Errno::NOENT) => continue,
                // A whiteout or any other file: nothing below it is seen.
                Err(Errno::NOTDIR) => break,
                Err(error) => return Err(error.into()),
            };
            let is_last = position + 1 == self.parts.len();
            let hides_below = match part.marks {
                Some(marks) if !is_last => dir.is_opaque(marks)?,
                _ => false,
            };
            parts.push(Part { layer: part.layer, dir, marks: part.marks });
            if hides_below {
                break;
            }
        }
        Ok((!parts.is_empty()).then_some(Self { parts }))
    }

    /// The visible names, sorted by byte.
    pub(crate) fn children(&self) -> io::Result<Vec<Child>> {
        let mut children = Vec::new();
        if let [only] = self.parts.as_slice() {
            for entry in only.dir.names()? {
                if !is_whiteout(only, &entry.name, entry.kind)? {
                    children.push(Child { name: entry.name, part: 0 });
                }
            }
        } else {
            // Name to the part that decides about it; `None` hides it.
            let mut decided: HashMap<OsString, Option<usize>> = HashMap::new();
            for (position, part) in self.parts.iter().enumerate() {
                for entry in part.dir.names()? {
                    if decided.contains_key(&entry.name) {
                        continue;
                    }
                    let hidden = is_whiteout(part, &entry.name, entry.kind)?;
                    decided.insert(entry.name, (!hidden).then_some(position));
                }
            }
            let visible = decided.into_iter();
            children.extend(visible.filter_map(|(name, part)| Some(Child { name, part: part? })));
        }
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(children)
    }

    /// The topmost part, whose metadata is the directory's.
    pub(crate) fn top(&self) -> Option<&Part> {
        self.parts.first()
    }
}

fn is_whiteout(part: &Part, name: &OsStr, kind: Option<FileKind>) -> io::Result<bool> {
    if part.marks.is_none() || !matches!(kind, Some(FileKind::CharDevice) | None) {
        return Ok(false);
    }
    Ok(part.dir.stat(name)?.is_some_and(|metadata| metadata.is_whiteout()))
}
