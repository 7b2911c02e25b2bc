//! Foreign compressed streams: what they are, and their content.

use std::io::{BufReader, Read};

/// The compression of a stream, found by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// How many bytes [`Compression::detect`] wants to see.
const MAGIC: usize = 10;

impl Compression {
    /// The compression of a stream that starts with `head`.
    pub(crate) fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            // The second is a skippable frame, which may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A stream, decompressed whatever its compression.
pub(crate) enum Decoder<R: Read> {
    Plain(R),
    Gzip(flate2::read::MultiGzDecoder<R>),
    Bzip2(bzip2::read::MultiBzDecoder<R>),
    Xz(liblzma::read::XzDecoder<R>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<R>>),
}

/// A stream whose first bytes were read ahead.
pub(crate) type Detected<R> = std::io::Chain<std::io::Cursor<Vec<u8>>, R>;

impl<R: Read> Decoder<Detected<R>> {
    /// Looks at the first bytes of `reader` and decompresses it.
    pub(crate) fn detect(mut reader: R) -> std::io::Result<Self> {
        let mut head = Vec::with_capacity(MAGIC);
        Read::by_ref(&mut reader).take(MAGIC as u64).read_to_end(&mut head)?;
        let compression = Compression::detect(&head);
        Self::new(compression, std::io::Cursor::new(head).chain(reader))
    }
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(compression: Compression, reader: R) -> std::io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(reader),
            Compression::Gzip => Self::Gzip(flate2::read::MultiGzDecoder::new(reader)),
            Compression::Bzip2 => Self::Bzip2(bzip2::read::MultiBzDecoder::new(reader)),
            Compression::Xz => Self::Xz(liblzma::read::XzDecoder::new_multi_decoder(reader)),
            Compression::Zstd => Self::Zstd(zstd::stream::read::Decoder::new(reader)?),
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Bzip2(reader) => reader.read(buffer),
            Self::Xz(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn streams_are_decompressed_whatever_they_are() {
        let plain = b"hello".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        let compressed = [
            plain.clone(),
            gzip.finish().unwrap(),
            bzip2.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(plain.as_slice(), 1).unwrap(),
        ];
        for stream in compressed {
            let mut read = Vec::new();
            Decoder::detect(stream.as_slice()).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
        let mut read = Vec::new();
        Decoder::detect(b"x".as_slice()).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"x");
    }
}
