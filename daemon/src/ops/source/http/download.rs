//! Storing a file while it comes in.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::MultiGzDecoder;
use kiln_cache::{Digest, Hasher};
use kiln_snapshotter::tree::{NewFile, TreeMetadata, TreeWriter};
use kiln_snapshotter::{Owner, Timestamp};
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;

use super::HttpSource;
use super::error::HttpError;
use super::request::Said;
use crate::solver::{Build, Stack, VertexProgress};

/// Size of the pieces in which a file is written.
const PIECE: usize = 1 << 20;
/// The most that a file may have, for a server may send without end.
const MOST_BYTES: u64 = 64 << 30;

/// A file that came in.
pub(super) struct Downloaded {
    pub(super) digest: Digest,
    pub(super) filename: String,
    pub(super) said: Said,
    pub(super) files: Stack,
}

/// Stores what a server sends in a new layer; nothing of it stays if it is not what was wanted.
pub(super) async fn download(
    build: &Arc<Build>,
    source: &HttpSource,
    mut response: Response,
    progress: &VertexProgress,
) -> anyhow::Result<Downloaded> {
    let url = source.shown();
    let said = Said::of(response.headers());
    let filename = source.file_name(said.disposition.as_deref());
    let layers = &build.daemon.layers;
    let layer = layers.create()?;
    let tree = TreeWriter::open(&layer.path())?;
    // Servers may compress what they send, asked or not.
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_vec());
    let target = Target { file: tree.file(&filename)?, hasher: Hasher::new(), size: 0 };
    let mut body = match encoding.as_deref() {
        Some(b"gzip" | b"x-gzip") => Body::Gzip(Box::new(MultiGzDecoder::new(target))),
        _ => Body::Plain(target),
    };

    let status = progress.status("downloading");
    if let Some(total) = response.content_length() {
        status.total(total);
    }
    let mut received = 0;
    loop {
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let chunk = response.chunk().await.map_err(reqwest::Error::without_url);
            let chunk = chunk.map_err(|error| HttpError::Body {
                url: url.clone(),
                received,
                source: error,
            })?;
            let Some(chunk) = chunk else { break };
            received += chunk.len() as u64;
            status.add(chunk.len() as u64);
            piece.extend_from_slice(&chunk);
        }
        if piece.is_empty() {
            break;
        }
        let stored = tokio::task::spawn_blocking(move || body.write(&piece).map(|()| body));
        body = stored.await?.map_err(|error| failed(&url, error))?;
    }
    drop(status);
    let Target { file, hasher, .. } = body.finish().map_err(|error| failed(&url, error))?;
    let digest = hasher.finish();
    if let Some(wanted) = source.checksum.filter(|&wanted| wanted != digest) {
        return Err(HttpError::Mismatch { url, got: digest, wanted }.into());
    }
    file.finish(&TreeMetadata {
        owner: Owner { uid: source.uid, gid: source.gid },
        mode: source.mode,
        mtime: Timestamp { secs: said.last_modified.unwrap_or(0), nanos: 0 },
        ..TreeMetadata::default()
    })?;
    tree.finish()?;
    let files = layers.commit(layer, &Stack::default(), format!("http url {url}")).await?;
    Ok(Downloaded { digest, filename, said, files })
}

fn failed(url: &str, error: io::Error) -> HttpError {
    let url = url.to_owned();
    match error.kind() {
        io::ErrorKind::FileTooLarge => HttpError::TooLarge { url, limit: MOST_BYTES },
        _ => HttpError::Store { url, source: error },
    }
}

/// A file that is hashed while it is written.
struct Target {
    file: NewFile,
    hasher: Hasher,
    size: u64,
}

impl Write for Target {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.size = self.size.saturating_add(data.len() as u64);
        if self.size > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all(data)?;
        self.hasher.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What a server sends, on its way into the file.
enum Body {
    Plain(Target),
    Gzip(Box<MultiGzDecoder<Target>>),
}

impl Body {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(target) => target.write_all(data),
            Self::Gzip(decoder) => decoder.write_all(data),
        }
    }

    fn finish(self) -> io::Result<Target> {
        match self {
            Self::Plain(target) => Ok(target),
            Self::Gzip(decoder) => decoder.finish(),
        }
    }
}
