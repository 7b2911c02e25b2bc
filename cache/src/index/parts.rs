//! What keys were made of, so that somebody can be told why a step missed.
//!
//! Nothing else depends on it: a row that is lost or damaged is an explanation less.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{
    Index,
    check::Problem,
    db::{Batch, decode},
    error::Result,
    pin::{PinLock, Pinnable},
    record::Record,
    schema::Family,
};
use crate::{digest::Digest, file_list::FileList, key::CacheKey};

/// What the parts of one record may take up, in bytes, without lists of files.
const MAX_PARTS: usize = 1024;
/// Names and texts longer than this are cut.
const MAX_TEXT: usize = 200;
/// How many records of one step are remembered for comparison.
const REMEMBERED: usize = 4;

/// What a step is known by from one build to the next, whatever becomes of its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StepId(pub(super) [u8; 16]);

impl StepId {
    /// The step that these words tell from others.
    pub fn of(words: &[&str]) -> Self {
        let digest = Digest::of(words.join("\0"));
        let (id, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self(*id)
    }
}

/// A row of [`Family::Steps`]: the records of a step and when they were made, the newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct StepRow(Vec<(CacheKey, SystemTime)>);

impl StepRow {
    fn put(&mut self, key: CacheKey, created_at: SystemTime) {
        self.forget(&key);
        let newer = self.0.partition_point(|(_, other)| *other > created_at);
        self.0.insert(newer, (key, created_at));
        if self.0.len() > REMEMBERED {
            // What is saved stays, even if the clock was turned back.
            let oldest = if newer == REMEMBERED { REMEMBERED - 1 } else { REMEMBERED };
            self.0.remove(oldest);
        }
    }

    fn forget(&mut self, key: &CacheKey) {
        self.0.retain(|(other, _)| other != key);
    }
}

/// What a key was made of, [as small as it is kept](Self::new).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeyParts {
    /// By what the step will be known in later builds, the best first.
    pub steps: Vec<StepId>,
    /// The named parts of its op.
    pub parts: Vec<KeyPart>,
    /// What is known of its inputs, in their order.
    pub inputs: Vec<InputPart>,
}

/// One named part of an op.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is, such as `env VERSION` or `command`.
    pub name: String,
    /// What it was.
    pub value: PartValue,
}

/// The value of a [`KeyPart`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PartValue {
    /// A short text.
    Text(String),
    /// The first bytes of the digest of something longer.
    Fingerprint([u8; 8]),
}

/// One input of a step.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InputPart {
    /// The name of the step that made it.
    pub name: String,
    /// The files that its key stood for, if it was known by those.
    #[serde(skip)]
    pub files: Option<FileList>,
}

impl PartValue {
    /// A text, or what stands for one that is too long.
    pub fn of(text: &str) -> Self {
        if text.len() <= MAX_TEXT { Self::Text(text.to_owned()) } else { Self::fingerprint(text) }
    }

    fn fingerprint(text: &str) -> Self {
        let digest = Digest::of(text);
        let (bytes, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self::Fingerprint(*bytes)
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Fingerprint(bytes) => bytes.len(),
        }
    }
}

impl KeyParts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes it as small as it is kept, which is about a kibibyte without lists of files: first long
    /// texts give way to their fingerprints, then all parts that are too many are one.
    pub fn new(steps: Vec<StepId>, parts: Vec<KeyPart>, inputs: Vec<InputPart>) -> Self {
        Self { steps, parts, inputs }.bounded()
    }

    fn bounded(mut self) -> Self {
        let each = (MAX_PARTS / 2).checked_div(self.inputs.len()).unwrap_or(0).min(MAX_TEXT);
        for input in &mut self.inputs {
            input.name.truncate(input.name.floor_char_boundary(each));
        }
        let inputs: usize = self.inputs.iter().map(|input| input.name.len() + 2).sum();
        let mut left = MAX_PARTS.saturating_sub(inputs + 16 * self.steps.len() + 8);
        let size = |part: &KeyPart| part.name.len() + part.value.len() + 4;
        if self.parts.iter().map(size).sum::<usize>() > left {
            for part in &mut self.parts {
                if let PartValue::Text(text) = &part.value
                    && text.len() > 8
                {
                    part.value = PartValue::fingerprint(text);
                }
            }
        }
        let mut kept = 0;
        while let Some(part) = self.parts.get(kept)
            && let Some(rest) = left.checked_sub(size(part))
        {
            left = rest;
            kept += 1;
        }
        if kept < self.parts.len() {
            let rest = format!("{:?}", self.parts.split_off(kept));
            self.parts.push(KeyPart { name: OTHERS.into(), value: PartValue::fingerprint(&rest) });
        }
        self
    }
}

/// The name of the part that stands for those that are too many.
const OTHERS: &str = "others";

/// A record of a step that is asked about, and what its key was made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// The record.
    pub record: Record,
    /// Its parts, without the lists of files.
    pub parts: KeyParts,
}

impl Index {
    /// What the primary key of a record was made of, without the lists of files.
    pub fn parts(&self, key: &CacheKey) -> Result<Option<KeyParts>> {
        self.db.get(Family::Parts, key.digest().as_bytes())
    }

    /// The files that the key of an input stood for, which is the one at `position` of the record
    /// with the primary key `key`.
    pub fn file_list(&self, key: &CacheKey, position: usize) -> Result<Option<FileList>> {
        let stored = self.db.get_raw(Family::FileLists, &list_row(key, position))?;
        Ok(stored.map(FileList::from_bytes))
    }

    /// Records of earlier runs of the step that is known by `step`, the newest first.
    pub fn earlier(&self, step: &StepId) -> Result<Vec<Earlier>> {
        let mut found = Vec::new();
        // A damaged row is as good as none.
        let row = self.db.get_raw(Family::Steps, &step.0)?;
        let row = row.and_then(|row| decode::<StepRow>(Family::Steps, &step.0, &row).ok());
        for (key, _) in row.unwrap_or_default().0 {
            if let (Ok(Some(record)), Ok(Some(parts))) = (self.record(&key), self.parts(&key)) {
                found.push(Earlier { record, parts });
            }
        }
        Ok(found)
    }

    /// Whether a row of [`Family::FileLists`] is one that the parts of its record lead to.
    pub(super) fn is_list_of_parts(&self, row: &[u8]) -> bool {
        let Some(key) = row.first_chunk().copied().map(Digest::from_bytes) else { return false };
        let key = CacheKey::new(key);
        let Ok(Some(parts)) = self.parts(&key) else { return false };
        (0..parts.inputs.len()).any(|position| row == list_row(&key, position))
    }

    /// What is wrong with a row of [`Family::Steps`].
    pub(super) fn check_step(&self, step: &[u8], row: &[u8]) -> Option<Problem> {
        let (Ok(step), Ok(StepRow(records))) =
            (<[u8; 16]>::try_from(step).map(StepId), decode(Family::Steps, step, row))
        else {
            return Some(Problem::Undecodable);
        };
        let is_of = |key| matches!(self.parts(key), Ok(Some(it)) if it.steps.contains(&step));
        let is_whole = !records.is_empty() && records.iter().all(|(key, _)| is_of(key));
        (!is_whole).then(|| Problem::Missing("a record's parts".to_owned()))
    }

    /// Stores what `record` was made of; its step forgets its oldest record for it.
    pub(super) fn put_parts(
        &self,
        pins: &mut PinLock<'_>,
        batch: &mut Batch<'_>,
        record: &Record,
        parts: &KeyParts,
    ) -> Result<()> {
        let key = &record.key;
        // Where those are damaged their step remembers them, until there are enough newer ones.
        if let Some(old) = self.parts(key).unwrap_or_else(|_| Some(KeyParts::default())) {
            note_steps(pins, &old.steps);
            delete_parts(batch, key, &old.steps, old.inputs.len())?;
        }
        if parts.is_empty() {
            return Ok(());
        }
        for (position, input) in parts.inputs.iter().enumerate() {
            if let Some(files) = &input.files {
                batch.put_raw(Family::FileLists, &list_row(key, position), files.as_bytes());
            }
        }
        note_steps(pins, &parts.steps);
        for step in &parts.steps {
            batch.update(Family::Steps, &step.0, |row: &mut StepRow| {
                row.put(*key, record.created_at);
            })?;
        }
        batch.put(Family::Parts, key.digest().as_bytes(), parts);
        Ok(())
    }
}

/// Whether a row of [`Family::Steps`] remembers a record; also if it cannot be read.
pub(super) fn remembers(step: &StepId, row: &[u8], key: &CacheKey) -> bool {
    decode::<StepRow>(Family::Steps, &step.0, row)
        .map_or(true, |StepRow(records)| records.iter().any(|(other, _)| other == key))
}

/// Notes that what steps remember is changed.
pub(super) fn note_steps(pins: &mut PinLock<'_>, steps: &[StepId]) {
    for &step in steps {
        pins.note_reference(Pinnable::Step(step));
    }
}

/// Deletes the parts of a record, which these steps remember and which has so many inputs.
pub(super) fn delete_parts(
    batch: &mut Batch<'_>,
    key: &CacheKey,
    steps: &[StepId],
    inputs: usize,
) -> Result<()> {
    batch.delete(Family::Parts, key.digest().as_bytes());
    for position in 0..inputs {
        batch.delete(Family::FileLists, &list_row(key, position));
    }
    for step in steps {
        batch.update(Family::Steps, &step.0, |row: &mut StepRow| row.forget(key))?;
    }
    Ok(())
}

fn list_row(key: &CacheKey, position: usize) -> [u8; 36] {
    let mut row = [0; 36];
    row[..32].copy_from_slice(key.digest().as_bytes());
    row[32..].copy_from_slice(&u32::try_from(position).unwrap_or(u32::MAX).to_be_bytes());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(count: usize, text: &str) -> KeyParts {
        let part = |n| KeyPart { name: format!("env VARIABLE_{n}"), value: PartValue::of(text) };
        let inputs = vec![InputPart { name: "n".repeat(500), files: None }];
        let steps = vec![StepId::of(&["a"]), StepId::of(&["b"])];
        KeyParts { steps, parts: (0..count).map(part).collect(), inputs }
    }

    #[test]
    fn what_is_stored_of_a_step_fits_into_a_kibibyte() {
        for (count, text) in
            [(1, "short"), (5, "t".repeat(300).as_str()), (30, "0123456789"), (500, "1")]
        {
            let stored = postcard::to_stdvec(&parts(count, text).bounded()).unwrap();
            assert!(stored.len() <= MAX_PARTS, "{count} × {}: {}", text.len(), stored.len());
        }
    }

    #[test]
    fn parts_that_are_too_many_still_differ_where_one_of_them_does() {
        let (one, mut other) = (parts(500, "1"), parts(500, "1"));
        other.parts[499].value = PartValue::of("2");
        assert_eq!(one.clone().bounded(), one.clone().bounded());
        assert_ne!(one.bounded(), other.bounded());
    }

    #[test]
    fn few_parts_are_stored_as_they_are() {
        let mut few = parts(3, "value");
        few.inputs[0].name.truncate(10);
        assert_eq!(few.clone().bounded(), few);
    }
}
