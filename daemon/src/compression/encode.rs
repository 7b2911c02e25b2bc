//! Writing a layer's blob: the plain stream's digest, compression, and the blob's digest in one
//! pass.

use std::io::{self, Write};

use anyhow::bail;
use kiln_cache::{Digest, Hasher};

use super::gzip::GzipWriter;

/// How a layer is compressed, with the level if one was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    None,
    Gzip(Option<u32>),
    Zstd(Option<i32>),
}

/// BuildKit's default for gzip, and that of the format's own tools.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

impl Format {
    /// Reads the attributes `compression` and `compression-level`.
    pub(crate) fn parse(name: Option<&str>, level: Option<i32>) -> anyhow::Result<Self> {
        match (name.unwrap_or("gzip"), level) {
            ("uncompressed", _) => Ok(Self::None),
            ("gzip" | "", None | Some(-1)) => Ok(Self::Gzip(None)),
            ("gzip" | "", Some(level @ 0..=9)) => Ok(Self::Gzip(u32::try_from(level).ok())),
            ("gzip" | "", Some(level)) => bail!("compression-level={level}: gzip has 0 to 9"),
            ("zstd", None) => Ok(Self::Zstd(None)),
            ("zstd", Some(level @ 0..=22)) => Ok(Self::Zstd(Some(level))),
            ("zstd", Some(level)) => bail!("compression-level={level}: zstd has 0 to 22"),
            (other, _) => {
                bail!("compression={other:?} is not supported: uncompressed, gzip and zstd are")
            }
        }
    }

    /// Whether both are the same compression, at whatever level.
    pub(crate) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Compresses what is written into `output`.
pub(crate) struct Encoder<W: Write> {
    plain: Hasher,
    inner: Inner<W>,
}

enum Inner<W: Write> {
    None(W),
    Gzip(GzipWriter<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

/// A finished stream.
pub(crate) struct Encoded<W> {
    /// Digest of what was written, before compression.
    pub(crate) plain_digest: Digest,
    pub(crate) output: W,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(format: Format, output: W) -> io::Result<Self> {
        let inner = match format {
            Format::None => Inner::None(output),
            Format::Gzip(level) => {
                Inner::Gzip(GzipWriter::new(output, level.unwrap_or(GZIP_LEVEL))?)
            }
            Format::Zstd(level) => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(output, level.unwrap_or(ZSTD_LEVEL))?;
                // The stream does not depend on how many workers there are, only on there being
                // any.
                encoder.multithread(2)?;
                Inner::Zstd(encoder)
            }
        };
        Ok(Self { plain: Hasher::new(), inner })
    }

    pub(crate) fn finish(self) -> io::Result<Encoded<W>> {
        let output = match self.inner {
            Inner::None(output) => output,
            Inner::Gzip(gzip) => gzip.finish()?,
            Inner::Zstd(zstd) => zstd.finish()?,
        };
        Ok(Encoded { plain_digest: self.plain.finish(), output })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::None(output) => output.write(data)?,
            Inner::Gzip(gzip) => gzip.write(data)?,
            Inner::Zstd(zstd) => zstd.write(data)?,
        };
        self.plain.update(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::compression::Decoder;

    #[test]
    fn every_format_gives_back_what_was_written() {
        let plain: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7 % 251) as u8).collect();
        for format in [Format::None, Format::Gzip(None), Format::Gzip(Some(1)), Format::Zstd(None)]
        {
            let mut encoder = Encoder::new(format, Vec::new()).unwrap();
            for piece in plain.chunks(77_777) {
                encoder.write_all(piece).unwrap();
            }
            let encoded = encoder.finish().unwrap();
            assert_eq!(encoded.plain_digest, Digest::of(&plain));
            let mut read = Vec::new();
            Decoder::detect(encoded.output.as_slice()).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, plain, "{format:?}");
        }
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        assert!(Format::parse(Some("gzip"), Some(10)).is_err());
        assert!(Format::parse(Some("zstd"), Some(-2)).is_err());
        assert!(Format::parse(Some("estargz"), None).is_err());
        assert_eq!(Format::parse(None, None).unwrap(), Format::Gzip(None));
    }
}
