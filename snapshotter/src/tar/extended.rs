//! What headers before an entry say about it.

use std::collections::BTreeMap;

use crate::tar::error::TarError;
use crate::tar::reader::printable;
use crate::tar::sparse::{self, Sparse};
use crate::tar::{XATTR, pax};

/// What extended headers say about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: SparseRecords,
}

/// GNU's records about sparse files, of all three versions.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// The real name; "path" is then one for programs that do not know these records.
    pub(super) name: Option<Vec<u8>>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) size: Option<u64>,
    pub(super) layout: Option<Sparse>,
    /// Version 0.0 gives offset and length in records of their own.
    offset: Option<u64>,
}

impl Extended {
    /// Takes the content of a PAX header.
    pub(super) fn records(&mut self, data: &[u8], name: &[u8]) -> Result<(), TarError> {
        let malformed = || TarError::Pax { name: printable(name) };
        for (key, value) in pax::parse(data).ok_or_else(malformed)? {
            self.record(key, value).ok_or_else(malformed)?;
        }
        Ok(())
    }

    /// Takes one record; one without a value takes back an earlier one.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let given = !value.is_empty();
        let text = || given.then(|| value.to_vec());
        let whole = || if given { pax::decimal(value).map(Some) } else { Some(None) };
        match key {
            b"path" => self.name = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = whole()?,
            b"uid" => self.uid = whole()?,
            b"gid" => self.gid = whole()?,
            b"mtime" => self.mtime = if given { Some(pax::time(value)?) } else { None },
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.major" => self.sparse.major = whole()?,
            b"GNU.sparse.minor" => self.sparse.minor = whole()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = whole()?,
            // A file that is one hole has an empty map.
            b"GNU.sparse.map" if !given => self.sparse.layout = Some(Sparse::default()),
            b"GNU.sparse.map" => self.sparse.layout = Some(sparse::parse_list(value)?),
            b"GNU.sparse.offset" => self.sparse.offset = whole()?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take()?;
                let layout = self.sparse.layout.get_or_insert_default();
                layout.push(offset, whole()??)?;
            }
            _ => {
                if let Some(attribute) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(attribute.to_vec(), value.to_vec());
                }
            }
        }
        Some(())
    }
}
