//! Looks at every row: whether it can be read, whether what it refers to is there, and whether what
//! refers to it is.
//!
//! Builds do not need this: they only ever see whole batches, and what the start
//! [reconciles](Index::reconcile). It is for disks that change what was written, for people who
//! touch the files, and for finding mistakes in this program.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::{
    BlobRow, DirId, DirRow, HistoryEntry, ImageRow, Index, KeyParts, LayerRow, OnDisk,
    db::{Batch, decode},
    durable::Volatile,
    error::Result,
    links::{self, Referrer},
    schema::Family,
    touch::Uses,
};
use crate::{
    content::{Blob, ContentStore},
    digest::Digest,
    key::CacheKey,
    layer::LayerId,
};

/// Something that can be wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A layer.
    Layer(LayerId),
    /// A mutable directory.
    Dir(DirId),
    /// A blob.
    Blob(Digest),
    /// A cache record, by its key.
    Record(Digest),
    /// An image, by its name.
    Image(String),
    /// A build in the history, by its reference.
    Build(String),
    /// A row that is none of these, by its family and its key in hex.
    Row(&'static str, String),
}

/// What is wrong with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Problem {
    /// Its row cannot be read.
    Undecodable,
    /// Its row is that of something else.
    OfAnother(String),
    /// It has no directory, or no file.
    NotOnDisk,
    /// Its file has another size than its row says.
    Size {
        /// As its row says.
        row: u64,
        /// As it is.
        disk: u64,
    },
    /// Its files are not what was written to them.
    Content(String),
    /// It refers to something that is not there.
    Missing(String),
    /// What it refers to does not know of it, and would not take it along.
    Unlinked(String),
    /// It would be given to something else, too.
    MayRepeat,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// What.
    pub subject: Subject,
    /// How.
    pub problem: Problem,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(id) => write!(f, "layer {id}"),
            Self::Dir(id) => write!(f, "directory {id}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Record(key) => write!(f, "cache record {key}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Build(reference) => write!(f, "build {reference}"),
            Self::Row(family, key) => write!(f, "row {key} of {family}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable => write!(f, "cannot be read"),
            Self::OfAnother(other) => write!(f, "has the row of {other}"),
            Self::NotOnDisk => write!(f, "is not on the disk"),
            Self::Size { row, disk } => write!(f, "has {disk} bytes on the disk, {row} in its row"),
            Self::Content(how) => write!(f, "{how}"),
            Self::Missing(what) => write!(f, "refers to {what}, which is not there"),
            Self::Unlinked(what) => write!(f, "is not known to {what}"),
            Self::MayRepeat => write!(f, "has a number that would be given out again"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subject, self.problem)
    }
}

/// What has a row.
#[derive(Default)]
struct Known {
    layers: HashMap<LayerId, LayerRow>,
    dirs: HashMap<DirId, DirRow>,
    blobs: HashMap<Digest, BlobRow>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, subject: Subject, problem: Problem) {
        self.0.push(Finding { subject, problem });
    }

    fn row(&mut self, family: Family, key: &[u8], problem: Problem) {
        self.add(Subject::Row(family.name(), hex::encode(key)), problem);
    }
}

impl Index {
    /// All that is wrong with the rows, and between them and the disk; in order of the subjects.
    ///
    /// What is inside of files is for the caller to look at.
    pub fn check(&self, on_disk: &OnDisk) -> Result<Vec<Finding>> {
        let (mut known, mut findings) = (Known::default(), Findings::default());
        self.check_blobs(on_disk, &mut known, &mut findings)?;
        self.check_layers(on_disk, &mut known, &mut findings)?;
        self.check_dirs(on_disk, &mut known, &mut findings)?;
        self.check_records(&known, &mut findings)?;
        self.check_owners(&known, &mut findings)?;
        self.check_references(&known, &mut findings)?;
        findings.0.sort_unstable();
        findings.0.dedup();
        Ok(findings.0)
    }

    /// Drops the subjects of `findings`, and all that depends on them, as a collection of garbage
    /// would. What is then on the disk without a row is found by [`Self::reconcile`].
    pub fn drop_broken(&self, store: &ContentStore, findings: &[Finding]) -> Result<()> {
        // Rows that cannot be read would be in the way of what comes then.
        let mut batch = Batch::new(&self.db);
        let mut layers = Vec::new();
        for Finding { subject, problem } in findings {
            match (subject, problem) {
                (Subject::Layer(id), Problem::MayRepeat) => self.skip_numbers(id.0)?,
                (Subject::Dir(id), Problem::MayRepeat) => self.skip_numbers(id.0)?,
                (Subject::Layer(id), Problem::Undecodable) => {
                    batch.delete(Family::Layers, &id.0.to_be_bytes());
                    layers.push(*id);
                }
                (Subject::Layer(id), _) => layers.push(*id),
                (Subject::Dir(id), Problem::Undecodable) => {
                    batch.delete(Family::Dirs, &id.0.to_be_bytes());
                }
                (Subject::Record(key), _) => {
                    self.delete_record(&mut batch, &CacheKey::new(*key))?;
                }
                (Subject::Image(name), _) => batch.delete(Family::Images, name.as_bytes()),
                (Subject::Build(reference), _) => {
                    batch.delete(Family::History, reference.as_bytes());
                }
                (Subject::Row(name, key), _) => {
                    let family = Family::ALL.into_iter().find(|family| family.name() == *name);
                    if let (Some(family), Ok(key)) = (family, hex::decode(key)) {
                        batch.delete(family, &key);
                    }
                }
                (Subject::Dir(_) | Subject::Blob(_), _) => {}
            }
        }
        batch.write()?;
        let mut batch = Batch::new(&self.db);
        for layer in &layers {
            self.delete_records_of(&mut batch, *layer)?;
        }
        batch.write()?;
        self.remove_with_descendants(&layers)?;
        for Finding { subject, .. } in findings {
            match subject {
                Subject::Blob(digest) => self.drop_blob(store, digest)?,
                Subject::Dir(id) => {
                    if let Some(row) = self.dir(*id)? {
                        let mut batch = Batch::new(&self.db);
                        self.delete_dir(&mut batch, &row)?;
                        batch.write()?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The rows of all layers. Walks over everything.
    pub fn layer_rows(&self) -> Result<Vec<LayerRow>> {
        self.db.scan(Family::Layers, &[]).map(|row| row.map(|(_, row)| row)).collect()
    }

    /// The rows of all mutable directories. Walks over everything.
    pub fn dir_rows(&self) -> Result<Vec<DirRow>> {
        self.db.scan(Family::Dirs, &[]).map(|row| row.map(|(_, row)| row)).collect()
    }

    fn check_blobs(
        &self,
        on_disk: &OnDisk,
        known: &mut Known,
        findings: &mut Findings,
    ) -> Result<()> {
        let sizes: HashMap<_, _> =
            on_disk.blobs.iter().map(|Blob { digest, size }| (*digest, *size)).collect();
        for row in self.db.scan_raw(Family::Blobs, &[]) {
            let (key, bytes) = row?;
            let Ok(digest) = key.as_ref().try_into().map(Digest::from_bytes) else {
                findings.row(Family::Blobs, &key, Problem::Undecodable);
                continue;
            };
            let subject = Subject::Blob(digest);
            match decode::<BlobRow>(Family::Blobs, &key, &bytes) {
                Err(_) => findings.add(subject, Problem::Undecodable),
                Ok(row) => {
                    match sizes.get(&digest) {
                        None => findings.add(subject, Problem::NotOnDisk),
                        Some(&disk) if disk != row.size => {
                            findings.add(subject, Problem::Size { row: row.size, disk });
                        }
                        Some(_) => {}
                    }
                    known.blobs.insert(digest, row);
                }
            }
        }
        Ok(())
    }

    fn check_layers(
        &self,
        on_disk: &OnDisk,
        known: &mut Known,
        findings: &mut Findings,
    ) -> Result<()> {
        let dirs: HashSet<_> = on_disk.layers.iter().copied().collect();
        for row in self.db.scan_raw(Family::Layers, &[]) {
            let (key, bytes) = row?;
            let Ok(id) = key.as_ref().try_into().map(u64::from_be_bytes).map(LayerId) else {
                findings.row(Family::Layers, &key, Problem::Undecodable);
                continue;
            };
            let subject = Subject::Layer(id);
            let Ok(row) = decode::<LayerRow>(Family::Layers, &key, &bytes) else {
                findings.add(subject, Problem::Undecodable);
                continue;
            };
            if row.id != id {
                findings.add(subject.clone(), Problem::OfAnother(format!("{:?}", row.id)));
            }
            if row.presence.is_local && !dirs.contains(&id) {
                findings.add(subject.clone(), Problem::NotOnDisk);
            }
            if self.may_repeat(id.0)? {
                findings.add(subject.clone(), Problem::MayRepeat);
            }
            for &parent in &row.parents {
                // In order of numbers: what a layer builds on comes before it.
                if !known.layers.contains_key(&parent) {
                    findings.add(subject.clone(), Problem::Missing(format!("{parent:?}")));
                } else if !self.db.contains(Family::Links, &links::child(parent, id))? {
                    findings.add(subject.clone(), Problem::Unlinked(format!("{parent:?}")));
                }
            }
            known.layers.insert(id, row);
        }
        Ok(())
    }

    fn check_dirs(
        &self,
        on_disk: &OnDisk,
        known: &mut Known,
        findings: &mut Findings,
    ) -> Result<()> {
        let dirs: HashSet<_> = on_disk.dirs.iter().copied().collect();
        for row in self.db.scan_raw(Family::Dirs, &[]) {
            let (key, bytes) = row?;
            let Ok(id) = key.as_ref().try_into().map(u64::from_be_bytes).map(DirId) else {
                findings.row(Family::Dirs, &key, Problem::Undecodable);
                continue;
            };
            let subject = Subject::Dir(id);
            let Ok(row) = decode::<DirRow>(Family::Dirs, &key, &bytes) else {
                findings.add(subject, Problem::Undecodable);
                continue;
            };
            if row.id != id {
                findings.add(subject.clone(), Problem::OfAnother(format!("{:?}", row.id)));
            }
            if !dirs.contains(&id) {
                findings.add(subject.clone(), Problem::NotOnDisk);
            }
            if self.may_repeat(id.0)? {
                findings.add(subject.clone(), Problem::MayRepeat);
            }
            if !self.db.contains(Family::Links, &links::dir(row.kind, &row.name, id))? {
                findings.add(subject, Problem::Unlinked("its name".to_owned()));
            }
            known.dirs.insert(id, row);
        }
        Ok(())
    }

    fn check_records(&self, known: &Known, findings: &mut Findings) -> Result<()> {
        let layers: HashSet<_> = known.layers.keys().copied().collect();
        for row in self.db.scan_raw(Family::Records, &[]) {
            let (key, bytes) = row?;
            let Ok(digest) = key.as_ref().try_into().map(Digest::from_bytes) else {
                findings.row(Family::Records, &key, Problem::Undecodable);
                continue;
            };
            for problem in self.check_record(&key, &bytes, &layers)? {
                findings.add(Subject::Record(digest), problem);
            }
        }
        for row in self.db.scan_raw(Family::Aliases, &[]) {
            let (key, bytes) = row?;
            match decode::<CacheKey>(Family::Aliases, &key, &bytes) {
                Err(_) => findings.row(Family::Aliases, &key, Problem::Undecodable),
                Ok(primary) if !self.is_alias_of(&key, &primary)? => {
                    findings.row(Family::Aliases, &key, Problem::Unlinked(primary.to_string()));
                }
                Ok(_) => {}
            }
        }
        for row in self.db.scan_raw(Family::Parts, &[]) {
            let (key, bytes) = row?;
            if decode::<KeyParts>(Family::Parts, &key, &bytes).is_err() {
                findings.row(Family::Parts, &key, Problem::Undecodable);
            } else if !self.db.contains(Family::Records, &key)? {
                findings.row(Family::Parts, &key, Problem::Missing("a record".to_owned()));
            }
        }
        for row in self.db.scan_raw(Family::FileLists, &[]) {
            let key = row?.0;
            if !self.is_list_of_parts(&key) {
                let lost = Problem::Missing("a record's parts".to_owned());
                findings.row(Family::FileLists, &key, lost);
            }
        }
        for row in self.db.scan_raw(Family::Steps, &[]) {
            let (key, bytes) = row?;
            if let Some(problem) = self.check_step(&key, &bytes) {
                findings.row(Family::Steps, &key, problem);
            }
        }
        Ok(())
    }

    fn check_owners(&self, known: &Known, findings: &mut Findings) -> Result<()> {
        let lost = |blobs: &[Digest]| {
            blobs.iter().find(|blob| !known.blobs.contains_key(blob)).map(ToString::to_string)
        };
        for row in self.db.scan_raw(Family::Images, &[]) {
            let (key, bytes) = row?;
            let subject = Subject::Image(String::from_utf8_lossy(&key).into_owned());
            let Ok(image) = decode::<ImageRow>(Family::Images, &key, &bytes) else {
                findings.add(subject, Problem::Undecodable);
                continue;
            };
            if let Some(blob) = lost(&image.blobs).or_else(|| lost(&[image.target.digest])) {
                findings.add(subject.clone(), Problem::Missing(format!("blob {blob}")));
            }
            if let Some(layer) = image.layers.iter().find(|layer| !known.layers.contains_key(layer))
            {
                findings.add(subject, Problem::Missing(format!("{layer:?}")));
            }
        }
        for row in self.db.scan_raw(Family::History, &[]) {
            let (key, bytes) = row?;
            let subject = Subject::Build(String::from_utf8_lossy(&key).into_owned());
            match decode::<HistoryEntry>(Family::History, &key, &bytes) {
                Err(_) => findings.add(subject, Problem::Undecodable),
                Ok(entry) => {
                    if let Some(blob) = lost(&entry.blobs) {
                        findings.add(subject, Problem::Missing(format!("blob {blob}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Rows that say something of other rows.
    fn check_references(&self, known: &Known, findings: &mut Findings) -> Result<()> {
        let is_known = |number: Option<u64>| {
            number.is_some_and(|number| {
                known.layers.contains_key(&LayerId(number))
                    || known.dirs.contains_key(&DirId(number))
            })
        };
        for row in self.db.scan_raw(Family::Links, &[]) {
            let (key, bytes) = row?;
            let is_sound = match links::referrer(&key) {
                Some(Referrer::Child(parent, child)) => {
                    known.layers.get(&child).is_some_and(|row| row.parents.contains(&parent))
                }
                Some(Referrer::Record(key)) => {
                    self.db.contains(Family::Records, key.digest().as_bytes())?
                }
                Some(Referrer::Chain(chain)) => {
                    decode(Family::Links, &key, &bytes).is_ok_and(|id: LayerId| {
                        known.layers.get(&id).is_some_and(|row| row.chain == Some(chain))
                    })
                }
                Some(Referrer::Dir(id)) => known.dirs.contains_key(&id),
                Some(Referrer::Shared(number)) => is_known(Some(number)),
                None => false,
            };
            if !is_sound {
                findings.row(Family::Links, &key, Problem::Missing("something".to_owned()));
            }
        }
        for row in self.db.scan_raw(Family::LayerData, &[]) {
            let key = row?.0;
            let number = key.first_chunk().copied().map(u64::from_be_bytes);
            if !number.is_some_and(|number| known.layers.contains_key(&LayerId(number))) {
                findings.row(Family::LayerData, &key, Problem::Missing("a layer".to_owned()));
            }
        }
        for row in self.db.scan_raw(Family::Uses, &[]) {
            let (key, bytes) = row?;
            if decode::<Uses>(Family::Uses, &key, &bytes).is_err() {
                findings.row(Family::Uses, &key, Problem::Undecodable);
            } else if !is_known(links::trailing_number(&key)) {
                findings.row(Family::Uses, &key, Problem::Missing("something".to_owned()));
            }
        }
        for row in self.db.scan_raw(Family::Volatile, &[]) {
            let mark = row?.0;
            let is_sound = match Volatile::from_mark(&mark) {
                // One of a layer that is gone goes with the next pass: no other gets its number.
                Some(Volatile::Layer(_)) => true,
                Some(Volatile::Dir(id)) => known.dirs.contains_key(&id),
                Some(Volatile::Blob(digest)) => known.blobs.contains_key(&digest),
                None => false,
            };
            if !is_sound {
                findings.row(Family::Volatile, &mark, Problem::Missing("something".to_owned()));
            }
        }
        Ok(())
    }
}
