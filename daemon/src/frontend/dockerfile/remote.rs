//! Contexts that are not a directory of the client: graphs that it hands in, archives that it
//! uploads, and what is had from elsewhere.

use std::collections::BTreeMap;

use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;

use super::graph::{Inputs, NONE, named};
use super::load::{CONTEXT, read_file};
use super::options::Options;
use super::remote_source::{RemoteSource, git, http};
use crate::frontend::Assignment;
use crate::graph::{Edge, Vertex};
use crate::ops::path::clean;
use crate::ops::source::without_credentials;
use crate::solver::SolveError;

/// The name of the one file that is the context.
const UPLOAD: &str = "context";

/// A context that is not a directory of the client.
pub(super) struct GivenContext {
    /// Its files; none is an empty file system.
    pub(super) files: Option<Edge>,
    /// The Dockerfile's name in it, if that is not the usual one.
    pub(super) filename: Option<String>,
}

/// The context, if it is not the client's directory.
pub(super) async fn given_context(
    work: &Assignment,
    options: &Options,
    inputs: &BTreeMap<String, Option<Edge>>,
) -> Result<Option<GivenContext>, SolveError> {
    let given = match &options.remote_context {
        Some(RemoteSource::Http(url)) => Some(file(work, url).await?),
        Some(RemoteSource::Git(repository)) => {
            let shown = without_credentials(&repository.remote);
            let step = named(format!("[internal] load git source {shown}"));
            Some(GivenContext { files: Some(git(repository, step).output(0)), filename: None })
        }
        None => {
            inputs.get(CONTEXT).map(|files| GivenContext { files: files.clone(), filename: None })
        }
    };
    Ok(given.map(|given| match &options.context_directory {
        Some(directory) => {
            let src = clean(directory);
            let copy = pb::FileActionCopy { src, dir_copy_contents: true, ..whole_copy() };
            GivenContext { files: Some(copied(given.files.as_ref(), copy)), ..given }
        }
        None => given,
    }))
}

/// What a server has or the client uploads: an archive of the context, or a Dockerfile alone.
async fn file(work: &Assignment, url: &str) -> Result<GivenContext, SolveError> {
    let step = named("[internal] load remote build context");
    let edge = http(url, UPLOAD, None, step).output(0);
    let head = read_file(work, &edge, UPLOAD).await?.unwrap_or_default();
    if !is_archive(&head) {
        return Ok(GivenContext { files: Some(edge), filename: Some(UPLOAD.to_owned()) });
    }
    let copy = pb::FileActionCopy {
        src: format!("/{UPLOAD}"),
        attempt_unpack_docker_compatibility: true,
        ..whole_copy()
    };
    Ok(GivenContext { files: Some(copied(Some(&edge), copy)), filename: None })
}

fn whole_copy() -> pb::FileActionCopy {
    pb::FileActionCopy { dest: "/".to_owned(), mode: -1, timestamp: -1, ..Default::default() }
}

/// A new file system with what `copy` takes from `from`.
fn copied(from: Option<&Edge>, copy: pb::FileActionCopy) -> Edge {
    let mut inputs = Inputs::default();
    let secondary_input = inputs.index(from);
    let action = Some(Action::Copy(copy));
    let action = pb::FileAction { input: NONE, secondary_input, output: 0, action };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    Vertex::new(op, inputs.0, None, named("")).output(0)
}

/// Whether a file that starts so is a tar archive, compressed or not.
fn is_archive(head: &[u8]) -> bool {
    const COMPRESSED: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    COMPRESSED.iter().any(|magic| head.starts_with(magic))
        || head.get(257..262).is_some_and(|magic| magic == b"ustar")
}

#[cfg(test)]
mod tests {
    use super::is_archive;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(b"\x1f\x8b\x08\0"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(b""));
    }
}
