//! Writing OCI layers.

use std::io::{self, Write};

use crate::metadata::{Device, Xattrs};
use crate::tar::{BLOCK, XATTR, number, padding, pax};

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// A file of this size, whose content is written next.
    File(u64),
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice(Device),
    BlockDevice(Device),
    Directory,
    Fifo,
}

/// One entry to be written.
#[derive(Debug)]
pub(crate) struct Record {
    /// A directory's ends in a slash.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: RecordKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whole seconds: layers have no fractions, as other builders write them.
    pub(crate) mtime: i64,
    pub(crate) xattrs: Xattrs,
}

/// Writes entries, with PAX records only for what the plain header cannot hold.
pub(crate) struct Writer<W> {
    out: W,
    padding: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, padding: 0 }
    }

    /// Begins an entry. A file's content follows, by [`content`](Self::content).
    pub(crate) fn record(&mut self, record: &Record) -> io::Result<()> {
        self.pad()?;
        let records = pax_records(record);
        if !records.is_empty() {
            self.out.write_all(pax_header(&record.name, records.len()).as_bytes())?;
            self.out.write_all(&records)?;
            self.padding = padding(records.len() as u64);
            self.pad()?;
        }
        self.out.write_all(header(record).as_bytes())?;
        if let RecordKind::File(size) = record.kind {
            self.padding = padding(size);
        }
        Ok(())
    }

    /// Writes a piece of the content; the pieces have to add up to the size announced.
    pub(crate) fn content(&mut self, piece: &[u8]) -> io::Result<()> {
        self.out.write_all(piece)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = std::mem::take(&mut self.padding) as usize;
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

const MAX_ID: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

fn link_of(kind: &RecordKind) -> &[u8] {
    match kind {
        RecordKind::Hardlink(link) | RecordKind::Symlink(link) => link,
        _ => b"",
    }
}

fn size_of(kind: &RecordKind) -> u64 {
    if let RecordKind::File(size) = kind { *size } else { 0 }
}

/// What does not fit into the header, sorted by key.
fn pax_records(record: &Record) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    let needs_pax = |text: &[u8]| text.len() > 100 || !text.is_ascii();
    if needs_pax(&record.name) {
        add("path", record.name.clone());
    }
    if needs_pax(link_of(&record.kind)) {
        add("linkpath", link_of(&record.kind).to_vec());
    }
    let size = size_of(&record.kind);
    if size > MAX_LONG {
        add("size", size.to_string().into_bytes());
    }
    for (key, id) in [("uid", record.uid), ("gid", record.gid)] {
        if u64::from(id) > MAX_ID {
            add(key, id.to_string().into_bytes());
        }
    }
    if u64::try_from(record.mtime).is_ok_and(|mtime| mtime > MAX_LONG) || record.mtime < 0 {
        add("mtime", record.mtime.to_string().into_bytes());
    }
    for (name, value) in &record.xattrs {
        records.push(([XATTR, name].concat(), value.clone()));
    }
    records.sort_unstable();
    let mut data = Vec::new();
    for (key, value) in &records {
        pax::write(&mut data, key, value);
    }
    data
}

/// The entry that carries the records of the one behind it.
fn pax_header(name: &[u8], size: usize) -> tar::Header {
    // Only readers that do not know PAX see the name: "dir/PaxHeaders.0/file".
    let split = name.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let mut path = [&name[..split], b"PaxHeaders.0/", &name[split..]].concat();
    path.retain(u8::is_ascii);
    path.truncate(100);
    while path.last() == Some(&b'/') {
        path.pop();
    }
    let mut header = blank(b'x');
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(&path);
    for field in [&mut old.mode, &mut old.uid, &mut old.gid] {
        number::write_octal(field, 0);
    }
    number::write_octal(&mut old.size, size as u64);
    number::write_octal(&mut old.mtime, 0);
    set_checksum(&mut header);
    header
}

fn header(record: &Record) -> tar::Header {
    let (flag, device) = match &record.kind {
        RecordKind::File(_) => (b'0', Device::default()),
        RecordKind::Hardlink(_) => (b'1', Device::default()),
        RecordKind::Symlink(_) => (b'2', Device::default()),
        RecordKind::CharDevice(device) => (b'3', *device),
        RecordKind::BlockDevice(device) => (b'4', *device),
        RecordKind::Directory => (b'5', Device::default()),
        RecordKind::Fifo => (b'6', Device::default()),
    };
    let mut header = blank(flag);
    // What does not fit is 0 here and right in the PAX records.
    let or_zero = |field: &mut [u8], value: u64| {
        if !number::write_octal(field, value) {
            number::write_octal(field, 0);
        }
    };
    let old = header.as_old_mut();
    set_text(&mut old.name, &record.name);
    set_text(&mut old.linkname, link_of(&record.kind));
    or_zero(&mut old.mode, record.mode.into());
    or_zero(&mut old.uid, record.uid.into());
    or_zero(&mut old.gid, record.gid.into());
    or_zero(&mut old.size, size_of(&record.kind));
    or_zero(&mut old.mtime, record.mtime.try_into().unwrap_or(0));
    let bytes = header.as_mut_bytes();
    or_zero(&mut bytes[329..337], device.major.into());
    or_zero(&mut bytes[337..345], device.minor.into());
    set_checksum(&mut header);
    header
}

fn blank(flag: u8) -> tar::Header {
    let mut header = tar::Header::new_old();
    let bytes = header.as_mut_bytes();
    bytes.fill(0);
    bytes[156] = flag;
    bytes[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// As much as fits of a text, without what is not ASCII.
fn set_text(field: &mut [u8], text: &[u8]) {
    let ascii = text.iter().copied().filter(u8::is_ascii);
    let length = field.iter_mut().zip(ascii).map(|(slot, byte)| *slot = byte).count();
    // A cut-off name must not look like a directory's.
    if text.len() > field.len() && length == field.len() && !text.ends_with(b"/") {
        for slot in field.iter_mut().rev() {
            if *slot != b'/' {
                break;
            }
            *slot = 0;
        }
    }
}

fn set_checksum(header: &mut tar::Header) {
    header.as_mut_bytes()[148..156].fill(b' ');
    let sum: u64 = header.as_bytes().iter().map(|&byte| u64::from(byte)).sum();
    // Six digits, a NUL and the space that is there.
    number::write_octal(&mut header.as_mut_bytes()[148..155], sum);
}
