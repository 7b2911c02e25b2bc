//! Reading a tar stream entry by entry.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

use crate::metadata::{Device, Timestamp, Xattrs};
use crate::tar::error::TarError;
use crate::tar::extended::{Extended, SparseRecords};
use crate::tar::sparse::{Malformed, MapReader, Sparse};
use crate::tar::{BLOCK, MAX_SPECIAL, number, padding};

/// Large enough that few entries need more than one read of the source.
const BUFFER: usize = 256 * 1024;

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    /// A further name of an earlier file.
    Hardlink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, with what its extended headers say about it already merged in.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As written: may be absolute, have `..`, or be anything else.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// The target of a link, as written.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) device: Device,
    pub(crate) xattrs: Xattrs,
    /// The layout of a sparse file; the content is then its parts, one after the other.
    pub(crate) sparse: Option<Sparse>,
}

/// Reads entries; the content of the current one is read, or skipped by asking for the next.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    stream: BufReader<R>,
    /// Bytes of content still to come, and of padding behind them.
    content: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream), content: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            self.skip(self.content)?;
            self.content = 0;
            self.skip(self.padding)?;
            self.padding = 0;
            let Some(header) = self.header()? else { return Ok(None) };
            let name = header.path_bytes();
            let size = field(&header.as_old().size, &name, "size")?;
            let size = u64::try_from(size).map_err(|_| bad_number(&name, "size"))?;
            match header.as_bytes()[156] {
                b'x' => extended.records(&self.special(&name, size)?, &name)?,
                b'L' => extended.name = Some(until_nul(self.special(&name, size)?)),
                b'K' => extended.link = Some(until_nul(self.special(&name, size)?)),
                // Comments on the whole archive; what they could say about files nobody honours.
                b'g' => self.begin(size),
                _ => return self.entry(&header, extended, size).map(Some),
            }
        }
    }

    /// Hands out the content of the current entry, piece by piece.
    pub(crate) fn content<E: From<TarError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.content > 0 {
            let available = match self.stream.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TarError::Read(error).into()),
            };
            if available.is_empty() {
                return Err(TarError::Truncated.into());
            }
            let length = usize::try_from(self.content)
                .map_or(available.len(), |rest| rest.min(available.len()));
            sink(&available[..length])?;
            self.stream.consume(length);
            self.content -= length as u64;
        }
        Ok(())
    }

    /// Reads whatever follows the archive, so that the stream's digest is that of all its bytes.
    pub(crate) fn drain(mut self) -> Result<(), TarError> {
        io::copy(&mut self.stream, &mut io::sink()).map(drop).map_err(TarError::Read)
    }

    fn begin(&mut self, size: u64) {
        self.content = size;
        self.padding = padding(size);
    }

    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let Some(header) = self.block()? else { return Ok(None) };
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return match self.block()? {
                Some(next) if next.as_bytes().iter().any(|&byte| byte != 0) => {
                    Err(TarError::LoneZeroBlock)
                }
                _ => Ok(None),
            };
        }
        verify_checksum(&header)?;
        Ok(Some(header))
    }

    /// One block; `None` if the stream is at its end.
    fn block(&mut self) -> Result<Option<tar::Header>, TarError> {
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(Some(header))
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        if count == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut (&mut self.stream).take(count), &mut io::sink())
            .map_err(TarError::Read)?;
        if skipped < count { Err(TarError::Truncated) } else { Ok(()) }
    }

    /// The content of an extended header.
    fn special(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL {
            return Err(TarError::SpecialTooLarge { name: printable(name), size });
        }
        self.begin(size);
        let mut data = Vec::new();
        self.content(|piece| {
            data.extend_from_slice(piece);
            Ok::<_, TarError>(())
        })?;
        Ok(data)
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        mut extended: Extended,
        size: u64,
    ) -> Result<Entry, TarError> {
        let name = match extended.sparse.name.take().or(extended.name) {
            Some(name) => name,
            None => header.path_bytes().into_owned(),
        };
        let flag = header.as_bytes()[156];
        let kind = match flag {
            // Before there was a type for directories, a slash said it.
            0 | b'0' if name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::Hardlink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            kind => return Err(TarError::Kind { name: printable(&name), kind }),
        };
        let old = header.as_old();
        let id = |value: Option<u64>, bytes: &[u8], what| {
            let value = match value {
                Some(value) => value,
                None => u64::try_from(field(bytes, &name, what)?)
                    .map_err(|_| bad_number(&name, what))?,
            };
            // The last id means "do not change" to the kernel.
            u32::try_from(value)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| bad_number(&name, what))
        };
        let (uid, gid) = (id(extended.uid, &old.uid, "uid")?, id(extended.gid, &old.gid, "gid")?);
        let (secs, nanos) = match extended.mtime {
            Some(time) => time,
            None => (field(&old.mtime, &name, "mtime")?, 0),
        };
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => device(header, &name)?,
            _ => Device::default(),
        };
        let link = match extended.link {
            Some(link) => link,
            None => header.link_name_bytes().map(Cow::into_owned).unwrap_or_default(),
        };
        let mode = (field(&old.mode, &name, "mode")? & 0o7777) as u32;
        // Entries of other types have no content, whatever their size says.
        let size = extended.size.unwrap_or(size);
        if i64::try_from(size).is_err() {
            return Err(bad_number(&name, "size"));
        }
        self.begin(if kind == EntryKind::File { size } else { 0 });
        let sparse = match kind {
            EntryKind::File => self.sparse(header, extended.sparse, &name)?,
            _ => None,
        };
        let mtime = Timestamp { secs, nanos };
        let xattrs = extended.xattrs.into_iter().collect();
        Ok(Entry { name, kind, link, mode, uid, gid, mtime, device, xattrs, sparse })
    }

    /// The layout of a sparse file, in whichever of the four ways it is given.
    fn sparse(
        &mut self,
        header: &tar::Header,
        records: SparseRecords,
        name: &[u8],
    ) -> Result<Option<Sparse>, TarError> {
        let malformed = || TarError::Sparse { name: printable(name) };
        let layout = if header.as_bytes()[156] == b'S' {
            Some(self.gnu_sparse(header, name)?)
        } else if (records.major, records.minor) == (Some(1), Some(0)) {
            let mut map = MapReader::default();
            let layout = loop {
                if self.content < BLOCK as u64 {
                    return Err(malformed());
                }
                let block = self.block()?.ok_or(TarError::Truncated)?;
                self.content -= BLOCK as u64;
                if let Some(layout) =
                    map.block(block.as_bytes()).map_err(|Malformed| malformed())?
                {
                    break layout;
                }
            };
            Some(Sparse { size: records.size.ok_or_else(malformed)?, ..layout })
        } else if let Some(layout) = records.layout {
            Some(Sparse { size: records.size.ok_or_else(malformed)?, ..layout })
        } else {
            None
        };
        layout.map(|layout| layout.checked(self.content).ok_or_else(malformed)).transpose()
    }

    /// GNU's old format: four parts in the header, more in blocks behind it.
    fn gnu_sparse(&mut self, header: &tar::Header, name: &[u8]) -> Result<Sparse, TarError> {
        let malformed = || TarError::Sparse { name: printable(name) };
        let gnu = header.as_gnu().ok_or_else(malformed)?;
        let number = |bytes: &[u8]| number::parse(bytes).and_then(|value| value.try_into().ok());
        let mut sparse =
            Sparse { size: number(&gnu.realsize).ok_or_else(malformed)?, ..Sparse::default() };
        let mut add = |part: &tar::GnuSparseHeader| {
            if part.is_empty() {
                return Some(());
            }
            sparse.push(number(&part.offset)?, number(&part.numbytes)?)
        };
        gnu.sparse.iter().try_for_each(&mut add).ok_or_else(malformed)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or(TarError::Truncated)?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(block.as_bytes());
            extension.sparse.iter().try_for_each(&mut add).ok_or_else(malformed)?;
            more = extension.is_extended();
        }
        Ok(sparse)
    }
}

/// Whether a stream that begins like this has a header first.
pub(crate) fn is_header(beginning: &[u8]) -> bool {
    let Some(block) = beginning.get(..BLOCK) else { return false };
    let empty = block.iter().all(|&byte| byte == 0);
    !empty && verify_checksum(tar::Header::from_byte_slice(block)).is_ok()
}

fn verify_checksum(header: &tar::Header) -> Result<(), TarError> {
    let stored = number::parse(&header.as_old().cksum).ok_or(TarError::Checksum)?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (position, &byte) in header.as_bytes().iter().enumerate() {
        // The field itself counts as spaces.
        let byte = if (148..156).contains(&position) { b' ' } else { byte };
        unsigned += i64::from(byte);
        // Some old writers summed signed characters.
        signed += i64::from(byte.cast_signed());
    }
    if stored == unsigned || stored == signed { Ok(()) } else { Err(TarError::Checksum) }
}

fn device(header: &tar::Header, name: &[u8]) -> Result<Device, TarError> {
    // The same place in all formats that have it.
    let bytes = header.as_bytes();
    let number = |range: std::ops::Range<usize>, what| {
        u32::try_from(field(&bytes[range], name, what)?).map_err(|_| bad_number(name, what))
    };
    Ok(Device {
        major: number(329..337, "device major")?,
        minor: number(337..345, "device minor")?,
    })
}

fn field(bytes: &[u8], name: &[u8], field: &'static str) -> Result<i64, TarError> {
    number::parse(bytes).ok_or_else(|| bad_number(name, field))
}

fn bad_number(name: &[u8], field: &'static str) -> TarError {
    TarError::Number { name: printable(name), field }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    text
}

/// A name for a message: bounded, and without what a terminal would obey.
pub(crate) fn printable(name: &[u8]) -> String {
    name[..name.len().min(256)].escape_ascii().to_string()
}
