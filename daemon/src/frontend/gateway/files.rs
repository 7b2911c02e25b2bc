//! Reading files of results.

use std::io::{Read as _, Seek as _, SeekFrom};

use kiln_proto::fsutil::{GoMode, Stat};
use kiln_proto::gateway::{FileRange, ReadFileRequest};
use kiln_snapshotter::{Entry, FileKind, Follow, View};
use tonic::Status;

use super::GatewayBuild;
use super::convert::find;
use super::failed;

/// The most that one call reads: what a message can carry, with room for its frame.
const MAX_READ: u64 = 15 << 20;

/// The files of the result that is named `id`.
pub(super) async fn view(gateway: &GatewayBuild, id: &str) -> Result<View, Status> {
    let Some(found) = find(gateway, id)? else { return Ok(View::empty()) };
    let work = &found.work;
    let snapshot = work.look_at(&found.edge).await;
    let snapshot = snapshot.map_err(|error| failed::to_status(gateway, &error))?;
    let layers = &work.daemon.layers;
    let fetched = async {
        layers.fetch(work, &snapshot).await?;
        layers.view(&snapshot)
    };
    fetched.await.map_err(|error| Status::internal(format!("{error:#}")))
}

/// The files of a mount of the container that is named `id`.
pub(super) fn view_of_container(
    gateway: &GatewayBuild,
    id: &str,
    mount: i32,
) -> Result<View, Status> {
    let container = gateway.containers.get(id)?;
    let invalid = |_| Status::invalid_argument(format!("no mount {mount}"));
    let mount = usize::try_from(mount).map_err(invalid)?;
    container.view(mount).map_err(|error| Status::unknown(format!("{error:#}")))
}

fn cannot(path: &str, error: &dyn std::fmt::Display) -> Status {
    Status::unknown(format!("{path}: {error}"))
}

fn entry(view: &View, path: &str, follow: Follow) -> Result<Entry, Status> {
    let found = view.lookup(path, follow).map_err(|error| cannot(path, &error))?;
    found.ok_or_else(|| Status::not_found(format!("open {path}: no such file or directory")))
}

pub(super) fn read(view: &View, request: &ReadFileRequest) -> Result<Vec<u8>, Status> {
    let path = &request.file_path;
    let entry = entry(view, path, Follow::Last)?;
    let mut file = entry.open().map_err(|error| cannot(path, &error))?;
    let range = request.range.unwrap_or(FileRange { offset: 0, length: 0 });
    let invalid = |_| Status::invalid_argument(format!("invalid range of {path}"));
    let offset = u64::try_from(range.offset).map_err(invalid)?;
    let length = u64::try_from(range.length).map_err(invalid)?;
    let wanted = if length == 0 { entry.metadata().size.saturating_sub(offset) } else { length };
    if wanted > MAX_READ {
        return Err(Status::out_of_range(format!("{path} is {wanted} bytes: read it in ranges")));
    }
    file.seek(SeekFrom::Start(offset)).map_err(|error| cannot(path, &error))?;
    let mut data = Vec::new();
    file.take(wanted).read_to_end(&mut data).map_err(|error| cannot(path, &error))?;
    Ok(data)
}

pub(super) fn stat(view: &View, path: &str) -> Result<Stat, Status> {
    let entry = entry(view, path, Follow::NoLast)?;
    to_stat(&entry).map_err(|error| cannot(path, &error))
}

pub(super) fn list(view: &View, path: &str, pattern: &str) -> Result<Vec<Stat>, Status> {
    let mut found = Vec::new();
    for entry in view.read_dir(path).map_err(|error| cannot(path, &error))? {
        let name = entry.path().file_name().unwrap_or_default().to_string_lossy();
        let wanted = pattern.is_empty()
            || kiln_proto::pattern::glob_match(pattern, &name)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if wanted {
            found.push(to_stat(&entry).map_err(|error| cannot(path, &error))?);
        }
    }
    Ok(found)
}

/// An entry as fsutil's messages say it; its path is the name alone.
fn to_stat(entry: &Entry) -> Result<Stat, kiln_snapshotter::FsError> {
    let metadata = entry.metadata();
    let linkname = match metadata.kind {
        FileKind::Symlink => entry.read_link()?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let name = entry.path().file_name().unwrap_or_default();
    Ok(Stat {
        path: name.to_string_lossy().into_owned(),
        mode: GoMode::from_st_mode(metadata.st_mode()).0,
        uid: metadata.uid,
        gid: metadata.gid,
        size: i64::try_from(metadata.size).unwrap_or(i64::MAX),
        mod_time: metadata
            .mtime
            .secs
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(metadata.mtime.nanos)),
        linkname,
        devmajor: i64::from(metadata.rdev.major),
        devminor: i64::from(metadata.rdev.minor),
        xattrs: entry
            .xattrs()?
            .into_iter()
            .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value.into()))
            .collect(),
    })
}
