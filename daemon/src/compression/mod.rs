//! Compressed streams: foreign ones are recognised and read, ours are written.

mod decode;
mod encode;
mod gzip;

pub(crate) use decode::Decoder;
pub(crate) use encode::{Encoder, Format};
